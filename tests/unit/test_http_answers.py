"""Ledger client, delivery and the commands' HTTP calls with servers that are none of ours."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mobile_client.cli.status import fetch_status
from shared.bounded_transport import BoundedTransport
from shared.errors import DimeeError, LedgerUnavailable
from shared.http_fetch import fetch, json_of
from shared.ledger.client import LedgerClient
from shared.ledger.outbox import Outbox
from shared.ledger.shipper import Shipper
from shared.link_control import LinkControl
from testbed.gateway import fetch_bundle
from testbed.load.generator import send_in_turn
from testbed.load.http_client import Answer, HttpClient
from tests.support.entries import caller, tier
from tests.support.hostile_server import BEHAVIOURS, Behaviour, HostileServer, http, sends

FLUSH_S = 20.0
WRONG: dict[str, Behaviour] = {
    name: behave for name, behave in BEHAVIOURS.items() if name != "never answers"
} | {
    "answers an empty object": sends(http(b"{}")),
    "answers a page": sends(http(b"<html>sign in to the network</html>")),
    "answers a number": sends(http(b"7")),
    "answers null": sends(http(b"null")),
    "answers other fields": sends(http(b'{"entries": 7, "requests": {"a": []}, "stored": "x"}')),
    "rejects as a page": sends(http(b"<html>no</html>", status="400 Bad Request")),
    "rejects with another error": sends(
        http(b'{"error": {"code": "no", "message": "x"}}', status="422 Unprocessable Content")
    ),
}
# these read the whole limit of 64 MiB
SLOW = {"sends an endless body", "sends an endless body without a length", "sends endless chunks"}


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    claimed = Outbox.claim(tmp_path / "outbox", "mobile")
    claimed.record(caller(), tier())
    yield claimed
    claimed.close()


@pytest.mark.parametrize("name", WRONG)
def test_entries_are_delivered_only_if_a_ledger_confirms_them(name: str, outbox: Outbox) -> None:
    with HostileServer(WRONG[name]) as server:
        shipper = Shipper(outbox, server.url, warning_s=0.0)
        assert not shipper.flush(FLUSH_S)
        report = shipper.undelivered()
        shipper.close(0.0)
    assert report is not None
    assert (report.undelivered, outbox.count_pending()) == (2, 2)


def stored(stored: int, duplicates: int) -> Behaviour:
    body = json.dumps({"stored": stored, "duplicates": duplicates, "of_a_newer_ledger": 1})
    return sends(http(body.encode()))


@pytest.mark.parametrize("counts", [(2, 0), (1, 1), (0, 2)])
def test_confirmed_entries_are_delivered(counts: tuple[int, int], outbox: Outbox) -> None:
    with HostileServer(stored(*counts)) as server:
        shipper = Shipper(outbox, server.url)
        assert shipper.flush(FLUSH_S)
        shipper.close(0.0)
    assert outbox.count_pending() == 0


@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (3, 0)])
def test_confirmation_of_another_number_is_none(counts: tuple[int, int], outbox: Outbox) -> None:
    with HostileServer(stored(*counts)) as server:
        shipper = Shipper(outbox, server.url)
        assert not shipper.flush(FLUSH_S)
        shipper.close(0.0)
    assert outbox.count_pending() == 2


def test_batch_that_a_proxy_finds_too_large_is_halved(outbox: Outbox) -> None:
    sizes: list[int] = []

    def behave(connection: socket.socket, body: bytes, _number: int) -> None:
        sizes.append(len(json.loads(body)["entries"]))
        if sizes[-1] > 1:
            connection.sendall(http(b"<html>", status="413 Content Too Large"))
        else:
            connection.sendall(http(b'{"stored": 1}'))

    with HostileServer(behave) as server:
        shipper = Shipper(outbox, server.url)
        assert shipper.flush(FLUSH_S)
        shipper.close(0.0)
    assert sizes == [2, 1, 1]


@pytest.mark.parametrize("name", sorted(WRONG.keys() - SLOW))
def test_ledger_client_raises_an_error_of_ours(name: str) -> None:
    with HostileServer(WRONG[name]) as server:
        client = LedgerClient(server.url)
        for read in (
            client.summary,
            client.verify,
            lambda: client.request_entries("r"),
            lambda: client.last_requests(3),
            lambda: client.list_requests(limit=3),
        ):
            if name == "answers an empty object" and read == client.summary:
                continue
            with pytest.raises(DimeeError) as raised:
                read()
            assert raised.value.message.isprintable()
        client.close()


def test_unknown_format_of_a_ledger_names_its_address() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"entries": [{"attempt_id": "a"}]})

    client = LedgerClient("http://other", httpx.MockTransport(answer))
    with pytest.raises(LedgerUnavailable, match="http://other answers in an unknown format"):
        client.request_entries("r")


@pytest.mark.parametrize("name", sorted(WRONG.keys() - SLOW))
def test_status_of_another_server_is_a_problem_or_empty(name: str) -> None:
    with HostileServer(WRONG[name]) as server, httpx.Client(transport=BoundedTransport()) as client:
        found = fetch_status(client, server.url, "/readyz")
    assert found.problem or name in ("answers an empty object", "answers other fields")


@pytest.mark.parametrize("name", sorted(WRONG.keys() - SLOW))
def test_commands_name_the_gateway_that_is_none(name: str) -> None:
    with HostileServer(WRONG[name]) as server:
        client = httpx.Client(base_url=server.url, transport=BoundedTransport())
        with client, pytest.raises(DimeeError):
            fetch_bundle(client)
        if not name.startswith(("answers an empty", "answers other")):
            with pytest.raises(DimeeError):
                LinkControl("edge", server.url).report()


@pytest.mark.parametrize("url", ["http://[::1", "http://a\x00b", "http://x:99999", "x:1", "", "//"])
def test_address_that_is_none_is_an_error_of_the_transport(url: str) -> None:
    with httpx.Client(transport=BoundedTransport()) as client, pytest.raises(httpx.HTTPError):
        fetch(client, "GET", url)


@pytest.mark.parametrize(
    "failure", [AttributeError("x"), RuntimeError(), OSError(9, "bad"), KeyError()]
)
def test_any_exception_of_a_transport_becomes_one_of_the_transport(failure: Exception) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise failure

    client = httpx.Client(transport=httpx.MockTransport(fail))
    with pytest.raises(httpx.TransportError):
        fetch(client, "GET", "http://a")


def test_body_is_read_up_to_its_limit() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=b"[1, 2]"))
    with httpx.Client(transport=transport) as client:
        assert json_of(fetch(client, "GET", "http://a", max_bytes=6)) == [1, 2]
        with pytest.raises(httpx.ReadError, match="more than 5 bytes"):
            fetch(client, "GET", "http://a", max_bytes=5)


BODY = b'{"a": 1}'
LOAD_ANSWERS: dict[str, tuple[bytes, tuple[int, bytes]]] = {
    "valid": (http(BODY), (200, BODY)),
    "in chunks": (
        b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8;x=1\r\n{"a": 1}\r\n0\r\n\r\n',
        (200, BODY),
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"")),
    "more than one answer": (http(BODY) + http(b"again"), (200, BODY)),
}


def load_answer(server: HostileServer, count: int = 1) -> list[Answer]:
    return asyncio.run(send_in_turn(HttpClient(server.url, "/"), [b"{}"] * count, FLUSH_S))


@pytest.mark.parametrize("name", LOAD_ANSWERS)
def test_load_generator_reads_answers(name: str) -> None:
    data, expected = LOAD_ANSWERS[name]
    with HostileServer(sends(data)) as server:
        found: Any = load_answer(server)
    assert [(one.status, one.body) for one in found] == [expected]


# counted by its status
VALID_HTTP = {name for name in BEHAVIOURS if name.startswith(("answers", "never", "redirects"))} | {
    "sends a compressed bomb",
    "sends a body that is not what it declares",
}


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name in BEHAVIOURS
        # valid HTTP, counted by its status
        if not name.startswith(
            ("answers", "never", "redirects", "sends a compressed", "sends a body")
        )
    ),
)
def test_load_generator_counts_garbage_as_a_lost_request(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with HostileServer(BEHAVIOURS[name]) as server:
        (found,) = load_answer(server)
    assert found.status == 0 or name in ("declares a wrong length", "declares two lengths")
    assert not caplog.records
