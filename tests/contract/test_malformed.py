"""Malformed requests to the four services get an error sentence and no 5xx except 503 and 504.

The services run in the test's process, and the requests are seeded. The long form,
`python -m testbed.chaos.malformed`, sends twenty thousand requests to real processes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from schemathesis.python import asgi

from cloud_server.app import create_app as create_cloud
from cloud_server.settings import CloudSettings
from edge_server.app import create_app as create_edge
from edge_server.settings import EdgeSettings
from mobile_client.gateway.app import create_app as create_mobile
from mobile_client.settings import MobileSettings
from shared.bundle.loading import Bundle
from shared.ledger.server.app import create_app as create_ledger
from shared.ledger.server.settings import LedgerSettings
from testbed.chaos.fuzz import FuzzResult, Headers, Post, fuzz_schema, fuzz_tensors, fuzz_texts
from tests.support.paths import BUNDLE, free_ports

SEED = 6
Make = Callable[[Path], FastAPI]


def unused_url() -> str:
    return f"http://127.0.0.1:{free_ports(1)[0]}"


def mobile(folder: Path) -> FastAPI:
    return create_mobile(
        MobileSettings(
            bundle=BUNDLE,
            state_dir=folder,
            ledger_url=unused_url(),
            edge_url=unused_url(),
            cloud_url=unused_url(),
        )
    )


def edge(folder: Path) -> FastAPI:
    return create_edge(EdgeSettings(bundle=BUNDLE, state_dir=folder, ledger_url=unused_url()))


def cloud(folder: Path) -> FastAPI:
    return create_cloud(CloudSettings(bundle=BUNDLE, state_dir=folder, ledger_url=unused_url()))


def ledger(folder: Path) -> FastAPI:
    return create_ledger(LedgerSettings(state_dir=folder))


def posting(http: TestClient) -> Post:
    def post(path: str, body: bytes, headers: Headers) -> tuple[int, bytes]:
        answer = http.post(path, content=body, headers=headers)
        return answer.status_code, answer.content

    return post


@pytest.mark.parametrize("make", [mobile, edge, cloud, ledger])
def test_generated_requests_get_documented_answers(make: Make, tmp_path: Path) -> None:
    app, result = make(tmp_path), FuzzResult()
    with asgi.get_client(app, max_stream_events=None) as http:
        schema = schemathesis.openapi.from_asgi("/openapi.json", app)

        def call(case: schemathesis.Case[Any]) -> tuple[int, bytes]:
            answer = case.call(session=http)
            return answer.status_code, answer.content

        fuzz_schema(schema, call, 400, SEED, result)
    assert not result.failures, result.failures[:5]
    assert result.by_status[200] > 0
    assert result.cases >= 50


@pytest.mark.parametrize(("make", "path"), [(mobile, "/v1/classify"), (edge, "/v1/infer")])
def test_texts_and_pairs_get_documented_answers(make: Make, path: str, tmp_path: Path) -> None:
    result = FuzzResult()
    with TestClient(make(tmp_path), raise_server_exceptions=False) as http:
        fuzz_texts(posting(http), path, 150, SEED, result)
    assert not result.failures, result.failures[:5]
    assert result.by_status[200] > 0
    assert result.by_status[422] > 0


def test_tensors_get_documented_answers(bundle: Bundle, tmp_path: Path) -> None:
    result = FuzzResult()
    with TestClient(edge(tmp_path), raise_server_exceptions=False) as http:
        hidden = bundle.manifest.hidden_size
        fuzz_tensors(posting(http), bundle.bundle_id, hidden, 200, SEED, result)
    assert not result.failures, result.failures[:5]
    assert result.by_status[200] > 0
    assert result.by_status[422] > 0
