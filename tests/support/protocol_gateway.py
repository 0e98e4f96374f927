"""A gateway in the test's process whose mobile answers every text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from mobile_client.gateway.app import create_app
from mobile_client.settings import MobileSettings
from tests.support.paths import BUNDLE, free_ports


@contextmanager
def mobile_gateway(folder: Path, **settings: Any) -> Iterator[TestClient]:
    """Yield a client of a gateway without other tiers and without a ledger."""
    closed = f"http://127.0.0.1:{free_ports(1)[0]}"
    given = {"bundle": BUNDLE, "state_dir": folder, "ledger_url": "off", "mode": "only-on-device"}
    app = create_app(MobileSettings(**given | settings, edge_url=closed, cloud_url=closed))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def classification(client: TestClient, text: str) -> dict[str, Any]:
    """Return the result of ``POST /v1/classify``, to which other protocols' answers compare."""
    answer = client.post("/v1/classify", json={"texts": [text]})
    result: dict[str, Any] = answer.json()["items"][0]["result"]
    return result


def json_bytes(value: Any) -> bytes:
    """Return JSON that may hold NaN and lone surrogates, as some clients send it."""
    return json.dumps(value).encode()
