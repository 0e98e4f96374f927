"""Outgoing credentials: token, token file, TLS files and the errors of a caller."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.credentials import Credentials
from shared.domain import Delivery, Tier
from shared.errors import InvalidInput, NotAdmitted, RateLimited
from shared.tier_client import Exchange, TierClient
from shared.wire import InferRequest
from tests.support.answers import EDGE_RULES


def send(credentials: Credentials, answer: httpx.Response) -> tuple[Exchange, httpx.Request]:
    requests: list[httpx.Request] = []

    def edge(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return answer

    async def exchange_once() -> Exchange:
        client = TierClient(
            Tier.EDGE, "http://edge", EDGE_RULES, httpx.MockTransport(edge), credentials
        )
        request = InferRequest(request_id="r", attempt_id="a", text="fine")
        exchange = await client.infer(request, 5)
        await client.close()
        return exchange

    return asyncio.run(exchange_once()), requests[0]


def refusal(status: int, code: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": code, "message": "no"}})


def test_token_is_sent_and_its_bytes_are_counted() -> None:
    without_token, request_without = send(Credentials(), refusal(401, "unauthorised"))
    with_token, request = send(Credentials(token="secret"), refusal(401, "unauthorised"))
    assert "authorization" not in request_without.headers
    assert request.headers["authorization"] == "Bearer secret"
    assert with_token.sent_bytes - without_token.sent_bytes == len(
        "authorization: Bearer secret\r\n"
    )


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "unauthorised", NotAdmitted),
        (403, "forbidden", NotAdmitted),
        (429, "rate_limited", RateLimited),
    ],
)
def test_refused_credentials_are_an_error_of_the_tier(
    status: int, code: str, kind: type[Exception]
) -> None:
    exchange, _ = send(Credentials(token="secret"), refusal(status, code))
    assert isinstance(exchange.error, kind)
    assert exchange.error.status in (429, 503), "the mobile's own caller has a valid token"
    assert exchange.delivery is Delivery.UNKNOWN
    assert "secret" not in exchange.error.message


def test_token_file_is_read_again_when_it_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    credentials = Credentials(token_file=file)
    assert credentials.headers() == {"authorization": "Bearer first"}
    file.write_text("second one")
    with caplog.at_level(logging.ERROR):
        assert credentials.headers() == {"authorization": "Bearer first"}, "a space is not valid"
        assert credentials.headers() == {"authorization": "Bearer first"}
    assert len(caplog.records) == 1
    assert "second" not in caplog.text
    file.write_text("third")
    assert credentials.headers() == {"authorization": "Bearer third"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"token": "a b"}, "DIMEE_TOKEN"),
        ({"token": "a\r\nx: y"}, "DIMEE_TOKEN"),
        ({"token": ""}, "DIMEE_TOKEN"),
        ({"token": "a", "token_file": Path("/nowhere")}, "not both"),
        ({"token_file": Path("/nowhere/token")}, "DIMEE_TOKEN_FILE: /nowhere/token"),
        ({"client_key": Path("/nowhere")}, "DIMEE_TLS_CLIENT_CERT"),
        ({"ca": Path("/nowhere/ca.pem")}, "DIMEE_TLS_CA: /nowhere/ca.pem"),
        ({"client_cert": Path("/nowhere/me.pem")}, "DIMEE_TLS_CLIENT_CERT: /nowhere/me.pem"),
    ],
)
def test_unusable_credentials_raise_one_sentence(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        _ = Credentials(**arguments).verify
    assert len(caught.value.message.splitlines()) == 1


def test_settings_do_not_print_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    from mobile_client.client import load_settings

    monkeypatch.setenv("DIMEE_TOKEN", "dimee_secret")
    monkeypatch.setenv("DIMEE_TLS_CA", "")
    settings = load_settings(load_settings(), policy="mobile")
    assert "dimee_secret" not in repr(settings)
    assert settings.tls_ca is None
    assert Credentials.of(settings).headers() == {"authorization": "Bearer dimee_secret"}
