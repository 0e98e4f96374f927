"""Authentication of a service: tokens, scopes, rate limits, public paths and websockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import HTTPConnection
from starlette.testclient import TestClient

from mobile_client.gateway.app import create_app as create_gateway
from mobile_client.settings import MobileSettings
from shared.errors import InvalidInput, from_payload
from shared.ledger.server.app import create_app
from shared.ledger.server.settings import LedgerSettings
from shared.serving.auth import (
    Principal,
    install_auth,
    principal_of,
    refuse_unprotected_service,
    require,
)
from shared.serving.tokens import new_token, revoke_token
from shared.settings import ServiceSettings, is_loopback, read_settings
from testbed import up as testbed
from testbed.links.settings import RelaySettings
from tests.support.asgi import infer_scope
from tests.support.entries import caller
from tests.support.paths import BUNDLE, free_ports


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.jsonl"


@pytest.fixture
def http(tmp_path: Path, file: Path) -> Iterator[TestClient]:
    new_token(file, "unrelated", ["infer"])
    app = create_app(LedgerSettings(state_dir=tmp_path, tokens=file))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def deliver(http: TestClient, headers: dict[str, str]) -> httpx.Response:
    body = {"entries": [caller().model_dump(mode="json")]}
    return http.post("/v1/entries", json=body, headers=headers)


def test_mobile_token_writes_to_the_ledger_and_cannot_read_it(http: TestClient, file: Path) -> None:
    mobile = bearer(new_token(file, "mobile-1", ["infer", "ledger:write"])[0])
    reader = bearer(new_token(file, "analyst", ["ledger:read"])[0])
    assert deliver(http, mobile).status_code == 200
    paths = ("/v1/requests/r1", "/v1/requests", "/v1/last-requests", "/v1/summary", "/v1/verify")
    for path in (*paths, "/openapi.json"):
        refused = http.get(path, headers=mobile)
        assert refused.status_code == 403, path
        error = refused.json()["error"]
        assert error["code"] == "forbidden"
        assert "mobile-1" in error["message"]
        assert "ledger:read" in error["message"]
        assert http.get(path, headers=reader).status_code == 200
    assert deliver(http, reader).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "Bearer dimee_wrong")],
        [("authorization", "Bearer ")],
        [("authorization", "Basic {secret}")],
        [("authorization", "{secret}")],
        [("authorization", "Bearer {secret}x")],
        [("authorization", "Bearer {secret}"), ("authorization", "Bearer {secret}")],
        [("authorization", b"Bearer \xff\x00\xfe")],
    ],
)
def test_requests_without_a_valid_token_are_refused(
    http: TestClient, file: Path, headers: list[tuple[str, Any]]
) -> None:
    secret, _ = new_token(file, "reader", ["ledger:read"])
    assert http.get("/v1/summary", headers=bearer(secret)).status_code == 200
    sent = [
        (name, value.format(secret=secret) if isinstance(value, str) else value)
        for name, value in headers
    ]
    for path in ("/v1/summary", "/docs", "/nothing", "/readyz/", "//readyz"):
        refused = http.get(path, headers=sent, follow_redirects=False)
        assert refused.status_code == 401, path
        assert refused.headers["www-authenticate"] == 'Bearer realm="dimee"'
        error = refused.json()["error"]
        assert error["code"] == "unauthorised"
        assert "token" in error["message"]
        assert secret not in refused.text
    for path in ("/healthz", "/readyz"):
        assert http.get(path).status_code == 200, "probes send no token"


def test_revoked_token_is_refused_from_the_next_request_on(http: TestClient, file: Path) -> None:
    secret, _ = new_token(file, "reader", ["ledger:read"])
    assert http.get("/v1/summary", headers=bearer(secret)).status_code == 200
    revoke_token(file, "reader")
    assert http.get("/v1/summary", headers=bearer(secret)).status_code == 401


def gateway(tmp_path: Path, **settings: Any) -> FastAPI:
    ledger_url = f"http://127.0.0.1:{free_ports(1)[0]}"
    return create_gateway(
        MobileSettings(
            bundle=BUNDLE,
            state_dir=tmp_path,
            policy="mobile",
            ledger_url=ledger_url,
            **settings,
        )
    )


def test_status_needs_its_own_scope(tmp_path: Path, file: Path) -> None:
    app = new_token(file, "app", ["classify"])[0]
    operator = new_token(file, "operator", ["status"])[0]
    with TestClient(gateway(tmp_path, tokens=file)) as http:
        body = {"texts": ["a fine film"]}
        assert http.post("/v1/classify", json=body).status_code == 401
        assert http.post("/v1/classify", json=body, headers=bearer(app)).status_code == 200
        assert http.post("/v1/classify", json=body, headers=bearer(operator)).status_code == 403
        assert http.get("/v1/status", headers=bearer(app)).status_code == 403
        assert http.get("/v1/status", headers=bearer(operator)).status_code == 200


def test_each_text_of_a_call_counts_for_the_rate_limit(tmp_path: Path, file: Path) -> None:
    one, other = (bearer(new_token(file, name, ["classify"])[0]) for name in ("one", "other"))
    with TestClient(gateway(tmp_path, tokens=file, rate_limit=0.01, rate_burst=4)) as http:
        many = http.post("/v1/classify", json={"texts": ["a fine film"] * 4}, headers=one)
        assert many.status_code == 200
        refused = http.post("/v1/classify", json={"texts": ["a fine film"]}, headers=one)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "rate_limited"
        assert 90 <= int(refused.headers["retry-after"]) <= 100
        single = http.post("/v1/classify", json={"texts": ["a fine film"]}, headers=other)
        assert single.status_code == 200, "the limit applies to each client separately"


def test_wrong_tokens_are_limited_by_address_and_do_not_block_valid_ones(
    tmp_path: Path, file: Path
) -> None:
    secret = bearer(new_token(file, "reader", ["ledger:read"])[0])
    settings = LedgerSettings(state_dir=tmp_path, tokens=file, rate_limit=0.01, rate_burst=3)
    with TestClient(create_app(settings)) as http:
        statuses = [http.get("/v1/summary", headers=bearer("guess")).status_code for _ in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        assert http.get("/v1/summary", headers=secret).status_code == 200
        assert http.get("/readyz").status_code == 200


def test_without_tokens_the_rate_limit_is_by_address(tmp_path: Path) -> None:
    settings = LedgerSettings(state_dir=tmp_path, rate_limit=0.01, rate_burst=2)
    app = create_app(settings)
    with (
        TestClient(app, client=("10.0.0.1", 1)) as one,
        TestClient(app, client=("10.0.0.2", 1)) as other,
    ):
        assert [one.get("/v1/summary").status_code for _ in range(3)] == [200, 200, 429]
        assert other.get("/v1/summary").status_code == 200
        named = {"x-forwarded-for": "10.9.9.9"}
        assert one.get("/v1/summary", headers=named).status_code == 429


def call(app: Any, authorization: str, kind: str = "http") -> list[Any]:
    """Return what ``app`` sends for a request whose body it must not read."""
    sent: list[Any] = []

    async def receive() -> Any:
        pytest.fail("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = infer_scope() | {"type": kind, "client": ("10.0.0.1", 1)}
    scope["headers"] = [(b"authorization", authorization.encode())]
    asyncio.run(app(scope, receive, send))
    return sent


def test_principal_is_the_token_name_and_refused_bodies_are_not_read(
    tmp_path: Path, file: Path
) -> None:
    secret, _ = new_token(file, "mobile-1", ["infer"])
    principals: list[Principal] = []

    class Recorder:
        """Innermost middleware that records the caller and answers nothing."""

        def __init__(self, app: Any) -> None:
            pass

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            principals.append(principal_of(HTTPConnection(scope)))

    app = FastAPI()
    app.add_middleware(Recorder)
    settings = ServiceSettings(state_dir=tmp_path, tokens=file, rate_limit=1e-6, rate_burst=1)
    install_auth(app, settings, require("infer"))
    assert call(app, f"bearer {secret}") == []
    assert call(app, "Bearer guess")[0]["status"] == 401
    assert call(app, f"Bearer {secret}")[0]["status"] == 429
    assert [one.display_name for one in principals] == ["mobile-1"]


def test_websocket_without_a_valid_token_is_closed_with_1008(tmp_path: Path, file: Path) -> None:
    new_token(file, "mobile-1", ["infer"])
    app = FastAPI()
    install_auth(app, ServiceSettings(state_dir=tmp_path, tokens=file), require("infer"))
    assert call(app, "Bearer guess", kind="websocket") == [
        {"type": "websocket.close", "code": 1008}
    ]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("[::1]", True),
        ("localhost", True), ("0.0.0.0", False), ("::", False), ("10.0.0.5", False),
        ("edge.example", False), ("", False), ("127.0.0.1.example", False),
    ],
)  # fmt: skip
def test_service_reachable_from_other_machines_needs_tokens(
    host: str, loopback: bool, file: Path
) -> None:
    assert is_loopback(host) == loopback
    if loopback:
        refuse_unprotected_service(ServiceSettings(host=host))
    else:
        with pytest.raises(InvalidInput, match="DIMEE_TOKENS"):
            refuse_unprotected_service(ServiceSettings(host=host))
    new_token(file, "mobile-1", ["infer"])
    refuse_unprotected_service(ServiceSettings(host=host, tokens=file))


def test_link_control_listens_on_loopback_only() -> None:
    assert read_settings(RelaySettings, host="127.0.0.1")
    with pytest.raises(InvalidInput, match="not loopback"):
        read_settings(RelaySettings, host="0.0.0.0")


def test_container_needs_tokens_if_its_published_port_is_reachable() -> None:
    refuse_unprotected_service(ServiceSettings(host="0.0.0.0", publish_address="127.0.0.1"))
    for published in ("0.0.0.0", "192.168.1.4"):
        with pytest.raises(InvalidInput, match=published):
            refuse_unprotected_service(ServiceSettings(host="0.0.0.0", publish_address=published))


@pytest.mark.parametrize("code", ["unauthorised", "forbidden", "rate_limited", "not_admitted"])
def test_errors_are_the_same_class_on_both_sides_of_the_wire(code: str) -> None:
    error = from_payload({"error": {"code": code, "message": "no"}}, 400)
    assert error.code == code


def test_testbed_refuses_tls_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMEE_TLS_CERT", str(tmp_path / "server.pem"))
    with pytest.raises(InvalidInput, match="plain HTTP on loopback"):
        testbed.testbed_from_options(
            {f"{name}_port": port for name, port in testbed.PORTS.items()}
            | dict.fromkeys(
                ("policy", "mobile_layers", "edge_layers", "bundle", "state_dir", "database_url")
            )
        )
