"""Pages of other origins: every service refuses them, except those that its settings name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from shared.errors import InvalidInput
from shared.ledger.server.app import create_app as create_ledger
from shared.ledger.server.settings import LedgerSettings
from shared.serving.tokens import new_token
from shared.settings import ServiceSettings, read_settings
from tests.support.gateway import make_gateway
from tests.support.tiers import create_edge

APP, OTHER = "https://app.example", "https://other.example"
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


def ledger(folder: Path, **settings: Any) -> FastAPI:
    return create_ledger(LedgerSettings(state_dir=folder, **settings))


SERVICES: dict[str, tuple[Callable[..., FastAPI], str]] = {
    "gateway": (make_gateway, "/app/relay/edge/v1/infer"),
    "edge": (create_edge, "/v1/infer"),
    "ledger": (ledger, "/v1/entries"),
}
"""Service → how to make it, and a path that the app calls."""


@pytest.mark.parametrize("service", SERVICES)
def test_without_named_origins_no_page_is_let_in(tmp_path: Path, service: str) -> None:
    make, path = SERVICES[service]
    client = TestClient(make(tmp_path))
    asked = client.options(path, headers=PREFLIGHT | {"origin": APP})
    posted = client.post(path, json={}, headers={"origin": APP})
    for answer in (asked, posted):
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert asked.status_code == 405


@pytest.mark.parametrize("service", SERVICES)
def test_only_pages_of_named_origins_are_let_in(tmp_path: Path, service: str) -> None:
    make, path = SERVICES[service]
    tokens = tmp_path / "tokens.jsonl"
    new_token(tokens, "app", ["classify", "infer", "ledger:write"])
    client = TestClient(make(tmp_path, tokens=tokens, web_origins=f"{APP}, http://10.0.0.2:8000"))
    # a preflight has no token
    asked = client.options(path, headers=PREFLIGHT | {"origin": APP})
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == APP
    assert "authorization" in asked.headers["access-control-allow-headers"].lower()
    # cookies of a session are never accepted from another origin
    assert "access-control-allow-credentials" not in asked.headers
    # an error can be read too, with the headers that the app needs
    refused = client.post(path, json={}, headers={"origin": APP})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == APP
    exposed = set(refused.headers["access-control-expose-headers"].split(", "))
    assert exposed == {"dimee-replica", "dimee-delivery", "retry-after"}
    for method in ("PUT", "DELETE"):
        preflight = PREFLIGHT | {"origin": APP, "access-control-request-method": method}
        assert client.options(path, headers=preflight).status_code == 400
    for origin in (OTHER, f"{APP}.evil.example", "null", "http://app.example"):
        asked = client.options(path, headers=PREFLIGHT | {"origin": origin})
        posted = client.post(path, json={}, headers={"origin": origin})
        assert asked.status_code == 400
        assert "access-control-allow-origin" not in asked.headers
        assert "access-control-allow-origin" not in posted.headers


@pytest.mark.parametrize(
    "origins",
    ["*", "app.example", "https://app.example/", "https://app.example/app", "null",
     "https://app.example:443", "https://user@app.example", "https://app.example, *"],
)  # fmt: skip
def test_setting_that_is_no_list_of_origins_is_refused(origins: str) -> None:
    with pytest.raises(InvalidInput, match="DIMEE_WEB_ORIGINS"):
        read_settings(ServiceSettings, web_origins=origins)
