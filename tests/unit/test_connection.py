"""Connections of a service under attack, over real sockets: limits of heads, bodies and time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from unittest.mock import Mock

import pytest

from shared.serving.connection import ConnectionLimits, HttpConnection, OpenConnections
from shared.serving.http_framing import HEAD_BYTES
from tests.support.echo import Echo
from tests.support.servers import RawConnection, post, run_with_server
from tests.support.virtual_time import run_in_virtual_time

T = TypeVar("T")
SHORT = ConnectionLimits(head_s=0.2, body_s=0.2, body_bytes_per_s=1e6)
"""Times that end while a test waits for the server, so that the test itself does not sleep."""
OFFER = ("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQA")


def with_echo(
    client: Callable[[Echo, int], Awaitable[T]], limits: ConnectionLimits | None = None
) -> T:
    """Return the result of ``client(echo, port)`` while `Echo` is served as a service is."""
    echo = Echo()
    return run_with_server(echo, lambda _, port: client(echo, port), limits)


def exchange(data: bytes, limits: ConnectionLimits | None = None) -> tuple[list[Any], list[str]]:
    """Send bytes on one connection; return the responses until it is closed, and the requests."""

    async def client(echo: Echo, port: int) -> tuple[list[Any], list[str]]:
        connection = await RawConnection.open(port)
        connection.send(data)
        responses = []
        while True:
            try:
                status, headers, body = await connection.response()
            except asyncio.IncompleteReadError:
                break
            responses.append((status, body))
            if headers.get("connection") == "close":
                assert await connection.closed_by_server()
                break
        connection.close()
        return responses, echo.begun

    return with_echo(client, limits)


@pytest.mark.parametrize("pieces", ["together", "apart"])
@pytest.mark.parametrize("chunked", [False, True])
def test_offer_of_another_protocol_is_ignored_and_its_body_is_no_request(
    pieces: str, chunked: bool
) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nhost: tier\r\n\r\n"

    async def client(echo: Echo, port: int) -> list[Any]:
        connection = await RawConnection.open(port)
        request = post(smuggled, *OFFER, path="/one")
        if chunked:
            head = request.partition(b"\r\n\r\n")[0].replace(
                b"content-length: %d" % len(smuggled), b"transfer-encoding: chunked"
            )
            request = b"%b\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (head, len(smuggled), smuggled)
        if pieces == "apart":
            head, _, rest = request.partition(b"\r\n\r\n")
            connection.send(head + b"\r\n\r\n")
            await connection.writer.drain()
            request = rest
            await echo.until(echo.arrived, 1)
        connection.send(request)
        found = [await connection.response()]
        connection.send(post(b"next", path="/two"))
        found.append(await connection.response())
        connection.close()
        assert echo.begun == ["POST /one", "POST /two"]
        return [body["body"] for _, _, body in found]

    assert with_echo(client) == [smuggled.decode(), "next"]


@pytest.mark.parametrize(
    "attack",
    [
        b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"content-length: 0\r\ncontent-length: 44\r\n\r\n",
        b"x: 1\r\n content-length: 44\r\n\r\n",
        b"x: 1\ncontent-length: 44\r\n\r\n",
        b"transfer-encoding: chunked, identity\r\n\r\n",
        b"content-length : 44\r\n\r\n",
    ],
)
def test_ambiguous_length_is_refused_and_nothing_after_it_runs(attack: bytes) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nhost: tier\r\n\r\n"
    responses, begun = exchange(b"POST /one HTTP/1.1\r\nhost: tier\r\n" + attack + smuggled)
    assert [status for status, _ in responses] == [400]
    assert begun == []


def test_absolute_form_and_expect_are_answered() -> None:
    async def client(__: Echo, port: int) -> list[Any]:
        connection = await RawConnection.open(port)
        connection.send(
            b"POST http://other/path?x=1 HTTP/1.1\r\nhost: tier\r\nexpect: 100-continue\r\n"
            b"content-length: 2\r\n\r\n"
        )
        assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(b"ok")
        status, _, body = await connection.response()
        connection.close()
        return [status, body["path"], body["body"]]

    assert with_echo(client) == [200, "/path", "ok"]


def test_large_head_is_refused_before_the_application() -> None:
    line = b"x: " + b"a" * HEAD_BYTES
    responses, begun = exchange(b"GET / HTTP/1.1\r\nhost: tier\r\n" + line + b"\r\n\r\n")
    assert [(status, body["error"]["code"]) for status, body in responses] == [
        (431, "head_too_large")
    ]
    assert begun == []


def test_endless_head_is_refused_while_it_is_sent() -> None:
    async def client(echo: Echo, port: int) -> tuple[int, bytes]:
        connection = await RawConnection.open(port)
        answer = asyncio.ensure_future(connection.reader.readuntil(b"\r\n\r\n"))
        sent = 0
        while not answer.done():
            connection.send(b"x: " + b"a" * 65_533)
            sent += 65_536
            await asyncio.wait({answer}, timeout=0.001)
        connection.close()
        assert echo.arrived == []
        return sent, answer.result()

    sent, answer = with_echo(client)
    assert sent < 10_000_000
    assert answer.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", None),
        (b"GET / HT", 408),
        (b"GET / HTTP/1.1\r\nhost: tier\r\n", 408),
        (b"POST / HTTP/1.1\r\nhost: tier\r\ncontent-length: 9\r\n\r\n1", 408),
        (b"POST / HTTP/1.1\r\nhost: tier\r\ntransfer-encoding: chunked\r\n\r\n9\r\n1", 408),
    ],
)
def test_slow_requests_are_ended(data: bytes, status: int | None) -> None:
    responses, begun = exchange(data, SHORT)
    assert [found for found, _ in responses] == ([] if status is None else [status])
    assert begun == []


def test_head_that_trickles_is_ended_although_bytes_arrive() -> None:
    async def client(echo: Echo, port: int) -> bytes:
        connection = await RawConnection.open(port)
        answer = asyncio.ensure_future(connection.reader.read())
        while not answer.done():
            connection.send(b"a")
            await asyncio.wait({answer}, timeout=0.02)
        assert echo.begun == []
        return answer.result()

    assert with_echo(client, SHORT).startswith(b"HTTP/1.1 408 ")


def test_slow_second_head_is_ended_too() -> None:
    request = post(b"1", path="/one")
    responses, begun = exchange(request + b"GET / HTTP/1.1\r\n", SHORT)
    assert [status for status, _ in responses] == [200, 408]
    assert begun == ["POST /one"]


@pytest.mark.parametrize(("received", "seconds"), [(0, 20), (1_000, 22), (50_000, 120)])
def test_body_may_take_longer_the_more_of_it_has_arrived(received: int, seconds: int) -> None:
    async def client(clock: Callable[[], float]) -> None:
        transport = Mock(asyncio.Transport)
        transport.is_closing.return_value = False
        limits = ConnectionLimits(body_s=20, body_bytes_per_s=500)
        connection = HttpConnection(lambda _: Mock(), limits, OpenConnections(1))
        connection.connection_made(transport)
        connection.data_received(post(b"a" * (received + 1))[:-1])
        await asyncio.sleep(seconds - 0.1)
        assert not transport.write.called
        await asyncio.sleep(0.2)
        assert transport.write.call_args[0][0].startswith(b"HTTP/1.1 408 ")
        assert transport.close.called

    run_in_virtual_time(client)


def test_pipelined_requests_are_answered_in_order() -> None:
    count = 50
    requests = b"".join(post(b"%d" % n, path=f"/{n}") for n in range(count))

    async def client(echo: Echo, port: int) -> list[str]:
        connection = await RawConnection.open(port)
        connection.send(requests)
        found = [(await connection.response())[2]["body"] for _ in range(count)]
        connection.close()
        return found

    assert with_echo(client) == [str(n) for n in range(count)]


def test_pipelined_requests_end_when_their_client_hangs_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def client(echo: Echo, port: int) -> None:
        connection = await RawConnection.open(port)
        connection.send(b"".join(post(b"1", path="/wait") for _ in range(3)))
        await echo.until(echo.begun, 1)
        connection.close()
        await echo.until(echo.disconnected, 1)

    with caplog.at_level(logging.WARNING):
        with_echo(client)
    assert caplog.records == []


def test_connection_that_waited_longest_is_closed_when_there_are_too_many() -> None:
    async def client(echo: Echo, port: int) -> None:
        busy = await RawConnection.open(port)
        busy.send(post(b"1", path="/wait"))
        await echo.until(echo.begun, 1)
        idle = [await RawConnection.open(port) for _ in range(3)]
        idle[0].send(post(b"1", path="/one"))  # waits from now on
        await idle[0].response()
        new = await RawConnection.open(port)
        new.send(post(b"1", path="/two"))
        assert (await new.response())[0] == 200
        assert await idle[1].closed_by_server()
        echo.release.set()
        assert (await busy.response())[0] == 200
        idle[0].send(post(b"1", path="/three"))
        assert (await idle[0].response())[0] == 200
        for connection in (busy, *idle, new):
            connection.close()

    with_echo(client, ConnectionLimits(connections=4))


def test_client_that_does_not_read_its_response_is_ended() -> None:
    large = b"a" * 8_000_000

    async def client(echo: Echo, port: int) -> None:
        connection = await RawConnection.open(port)
        transport = connection.writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        connection.send(post(large))
        await echo.until(echo.finished, 1)
        connection.close()

    with_echo(client, ConnectionLimits(write_s=0.2))
