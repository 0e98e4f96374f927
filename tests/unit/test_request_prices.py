"""Every request counts against its caller's rate limit, also one that is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from mobile_client.gateway.app import create_app
from mobile_client.settings import MobileSettings
from shared.serving.body_limit import BYTES_PER_REQUEST
from shared.serving.rate_limit import RateLimit
from shared.serving.tokens import new_token
from tests.support.paths import BUNDLE, free_ports
from tests.support.tiers import create_edge

BURST = 3
SLOW = {"rate_limit": 1e-3, "rate_burst": BURST}
"""So slow that no request of a test is allowed after the burst, however long the test takes."""


def gateway(folder: Path, **settings: Any) -> TestClient:
    """Return a gateway that no server answers."""
    ledger, edge, cloud = (f"http://127.0.0.1:{port}" for port in free_ports(3))
    urls = {"ledger_url": ledger, "edge_url": edge, "cloud_url": cloud}
    return TestClient(
        create_app(MobileSettings(bundle=BUNDLE, state_dir=folder, **urls, **settings))
    )


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[TestClient]:
    with gateway(tmp_path, **SLOW) as client:
        yield client


def statuses(client: TestClient, body: bytes, path: str = "/v1/classify") -> list[int]:
    headers = {"content-type": "application/json"}
    return [client.post(path, content=body, headers=headers).status_code for _ in range(BURST + 2)]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"texts": []}', 422),
        (b'{"texts": [], "pairs": []}', 422),
        (b"{", 422),
        (b"", 422),
        (b'{"texts": ["fine"], "policy": "no such"}', 422),
        (json.dumps({"texts": ["fine"] * 1_001}).encode(), 422),
        (b'{"texts": [1]}', 422),
    ],
)
def test_refused_calls_of_the_gateway_count(limited: TestClient, body: bytes, status: int) -> None:
    found = statuses(limited, body)
    assert found[BURST:] == [429, 429]
    assert found[:BURST] == [status] * BURST or found[0] in (413, 422)


def test_unknown_paths_count(limited: TestClient) -> None:
    assert statuses(limited, b"{}", "/nothing") == [404] * BURST + [429, 429]


def test_refused_attempts_of_a_tier_count(tmp_path: Path) -> None:
    with TestClient(create_edge(tmp_path, **SLOW)) as client:
        assert statuses(client, b"{}", "/v1/infer") == [422] * BURST + [429, 429]


def test_requests_without_a_token_count_by_address(tmp_path: Path) -> None:
    file = tmp_path / "tokens.jsonl"
    secret, _ = new_token(file, "mobile-1", ["classify"])
    with gateway(tmp_path, tokens=file, **SLOW) as client:
        assert statuses(client, b'{"texts": []}') == [401] * BURST + [429, 429]
        client.headers["authorization"] = f"Bearer {secret}"
        assert statuses(client, b'{"texts": []}')[0] == 422, "the token has its own limit"


@pytest.mark.parametrize("body", [b"x", b'{"texts": ["x"]}'])
def test_large_body_counts_as_several_requests(limited: TestClient, body: bytes) -> None:
    large = body + b" " * (BURST * BYTES_PER_REQUEST)
    assert statuses(limited, large)[1:] == [429] * (BURST + 1)


def test_probes_are_free(limited: TestClient) -> None:
    assert {limited.get("/healthz").status_code for _ in range(BURST + 2)} == {200}


def test_charge_never_returns_requests() -> None:
    limit = RateLimit(1.0, 1, lambda: 0.0)
    assert limit.acquire("a") == 0
    limit.charge("a", -5)
    assert limit.acquire("a") > 0
