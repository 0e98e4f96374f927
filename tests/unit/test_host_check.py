"""Host names at which a service without tokens answers (DNS rebinding)."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from shared.ledger.server.app import create_app as create_ledger
from shared.ledger.server.settings import LedgerSettings
from shared.serving.tokens import new_token
from tests.support.gateway import make_gateway

LOCAL = (
    "127.0.0.1:8701",
    "127.0.0.1",
    "[::1]:8701",
    "192.168.1.20:8701",
    "localhost:8701",
    "LOCALHOST",
    "mobile:8701",
    "dimee.localhost:8701",
    "host.docker.internal:8701",
    "laptop.local",
)
PUBLIC = (
    "attacker.example:8701",
    "attacker.example",
    "127.0.0.1.attacker.example:8701",
    "localhost.attacker.example",
    "attacker.example.:8701",
    "local.attacker.example",
)


@pytest.fixture
def gateway(tmp_path: Path) -> TestClient:
    return TestClient(make_gateway(tmp_path, allowed_hosts="dimee.example, www.dimee.example"))


@pytest.mark.parametrize("host", LOCAL)
def test_local_names_and_addresses_are_answered(gateway: TestClient, host: str) -> None:
    assert gateway.get("/v1/bundle", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", PUBLIC)
@pytest.mark.parametrize("path", ["/", "/v1/bundle", "/dashboard/api/state", "/metrics"])
def test_a_public_name_is_refused_on_every_path(gateway: TestClient, host: str, path: str) -> None:
    answer = gateway.get(path, headers={"host": host})
    assert answer.status_code == 403
    error = answer.json()["error"]
    assert (error["code"], error["field"]) == ("forbidden", "host")
    assert "DIMEE_ALLOWED_HOSTS" in error["message"]


def test_names_of_the_settings_are_answered(gateway: TestClient) -> None:
    for host in ("dimee.example", "WWW.dimee.example:443"):
        assert gateway.get("/v1/bundle", headers={"host": host}).status_code == 200
    assert gateway.get("/v1/bundle", headers={"host": "x.dimee.example"}).status_code == 403


def test_with_tokens_any_name_is_answered(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.jsonl"
    secret, _ = new_token(tokens, "anna", ["classify"])
    gateway = TestClient(make_gateway(tmp_path, tokens=tokens))
    headers = {"host": "dimee.example", "authorization": f"Bearer {secret}"}
    assert gateway.get("/v1/bundle", headers=headers).status_code == 200


def test_the_ledger_refuses_public_names(tmp_path: Path) -> None:
    with TestClient(create_ledger(LedgerSettings(state_dir=tmp_path))) as ledger:
        assert ledger.get("/v1/summary", headers={"host": "127.0.0.1:8700"}).status_code == 200
        assert ledger.get("/v1/summary", headers={"host": "attacker.example"}).status_code == 403
