"""Health and readiness of every service: by GET and HEAD, on IPv4 and IPv6."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from mobile_client.gateway.app import create_app as create_gateway
from mobile_client.settings import MobileSettings
from shared.errors import LedgerUnavailable
from shared.ledger.server.app import create_app as create_ledger
from shared.ledger.server.settings import LedgerSettings
from shared.ledger.server.store import LedgerStore
from shared.serving.tokens import new_token
from shared.settings import ServiceSettings, is_loopback
from testbed.links.settings import RelaySettings, parse_address
from tests.support.paths import BUNDLE, REPOSITORY, free_ports
from tests.support.servers import RawConnection, run_with_server
from tests.support.tiers import create_edge


def gateway(folder: Path) -> FastAPI:
    ledger = f"http://127.0.0.1:{free_ports(1)[0]}"
    return create_gateway(MobileSettings(bundle=BUNDLE, state_dir=folder, ledger_url=ledger))


def ledger(folder: Path) -> FastAPI:
    return create_ledger(LedgerSettings(state_dir=folder))


SERVICES = {"gateway": gateway, "tier": create_edge, "ledger": ledger}


@pytest.mark.parametrize("make", SERVICES.values(), ids=SERVICES)
def test_head_is_answered_as_get_without_a_body(
    make: Callable[[Path], FastAPI], tmp_path: Path
) -> None:
    app = make(tmp_path)
    with TestClient(app) as client:
        for path in ("/healthz", "/readyz"):
            assert client.get(path).status_code == 200
            assert client.head(path).status_code == 200
        assert "head" not in client.get("/openapi.json").json()["paths"]["/healthz"]


def test_head_of_the_protocols_probes_is_answered(tmp_path: Path) -> None:
    with TestClient(gateway(tmp_path)) as client:
        model = client.get("/info").json()["model_id"]
        for path in ("/health", "/v2/health/live", "/v2/health/ready", f"/v2/models/{model}/ready"):
            assert client.head(path).status_code == client.get(path).status_code == 200, path
    assert TestClient(gateway(tmp_path / "b")).head("/v2/health/ready").status_code == 503


@pytest.mark.parametrize("name", ["gateway", "tier"])
def test_head_of_a_service_that_is_not_ready_is_503(name: str, tmp_path: Path) -> None:
    client = TestClient(SERVICES[name](tmp_path))  # not started
    assert client.head("/readyz").status_code == client.get("/readyz").status_code == 503
    assert client.head("/healthz").status_code == 200


def test_head_of_a_ledger_without_its_database_is_503(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ping(_: LedgerStore) -> None:
        raise LedgerUnavailable("the database is away")

    with TestClient(ledger(tmp_path)) as client:
        monkeypatch.setattr(LedgerStore, "ping", ping)
        assert client.head("/readyz").status_code == client.get("/readyz").status_code == 503
        assert client.head("/healthz").status_code == 200


def test_body_of_a_head_response_is_empty_on_the_wire(tmp_path: Path) -> None:
    async def client(_: object, port: int) -> bytes:
        connection = await RawConnection.open(port)
        connection.send(b"HEAD /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        return await connection.reader.read()

    head, _, body = run_with_server(ledger(tmp_path), client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b""


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::", "::1", "[::1]", "127.0.0.1", "0.0.0.0"])
def test_health_check_asks_where_the_service_listens(host: str, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    file = tmp_path / "tokens.jsonl"
    new_token(file, "reader", ["ledger:read"])
    settings = {"HOST": host, "PORT": port, "STATE_DIR": tmp_path, "TOKENS": file}
    environment = os.environ | {f"DIMEE_{name}": str(value) for name, value in settings.items()}
    environment |= {"PYTHONPATH": str(REPOSITORY), "DIMEE_LOG_LEVEL": "info"}

    def check(**given: str) -> int:
        command = [sys.executable, str(REPOSITORY / "deploy" / "healthcheck.py")]
        return subprocess.run(command, env=environment | given, timeout=60).returncode

    assert check() == 1
    command = [sys.executable, "-m", "shared.ledger.server"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "running on" in line)
        assert f"http://{shown(host)}:{port} " in line
        assert check() == 0
        if ":" in host:
            assert check(DIMEE_HOST="127.0.0.1") == 1
            response = httpx.get(f"http://[::1]:{port}/readyz", trust_env=False, timeout=60)
            assert response.status_code == 200
    finally:
        process.terminate()
        process.communicate(timeout=60)


def shown(host: str) -> str:
    """Return a host as it is in a URL."""
    return f"[{host.strip('[]')}]" if ":" in host else host


def test_addresses_of_a_service_and_of_a_link_may_have_brackets() -> None:
    assert ServiceSettings(host="[::1]").host == "::1"
    assert is_loopback("[::1]")
    assert parse_address("[::1]:8702") == ("::1", 8702)
    assert parse_address("edge:8702") == ("edge", 8702)
    assert RelaySettings(link_target="[fe80::1]:80").link_target == "[fe80::1]:80"
    for wrong in ("::1:80", "[::1]", "[edge]:80", "edge"):
        with pytest.raises(ValueError, match="link_target"):
            RelaySettings(link_target=wrong)
