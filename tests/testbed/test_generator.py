"""HTTP client, open loop and closed loop: every request is counted once, from its intended time."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import trustme

from shared.credentials import Credentials
from testbed.load.generator import closed_loop, open_loop, send_in_turn
from testbed.load.http_client import HttpClient
from testbed.load.tally import Tally
from tests.support.http_server import HttpServer, in_turn, response
from tests.support.paths import free_ports

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"


def body(number: int) -> bytes:
    return b'{"number": %d}' % number


def test_answers_with_length_in_chunks_and_with_close_are_read() -> None:
    async def send() -> list[tuple[int, bytes]]:
        answers = [response(), CHUNKED, response(429, b'{"a": 1}'), CLOSING, response()]
        async with HttpServer(in_turn(answers)) as server:
            client = HttpClient(server.url, "/x")
            found = await send_in_turn(client, [body(n) for n in range(5)])
            assert server.bodies == [body(n) for n in range(5)]
            return [(one.status, one.body) for one in found]

    expected = [(200, b"{}"), (200, b"{}"), (429, b'{"a": 1}'), (200, b"{}"), (200, b"{}")]
    assert asyncio.run(send()) == expected


def test_request_has_path_host_length_and_token() -> None:
    client = HttpClient("http://127.0.0.1:8701/base/", "/x", Credentials(token="secret"))
    head, _, content = client.request(b"{}").partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /base/x HTTP/1.1"
    assert {"host: 127.0.0.1:8701", "content-length: 2"} <= set(lines)
    assert any(line.lower() == "authorization: bearer secret" for line in lines)
    assert content == b"{}"


def test_https_is_verified_by_the_authority_of_the_credentials(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)

    async def send(credentials: Credentials) -> int:
        async with HttpServer(in_turn([response()]), tls) as server:
            (answer,) = await send_in_turn(HttpClient(server.url, "/x", credentials), [b"{}"])
            return answer.status

    assert asyncio.run(send(Credentials(ca=tmp_path / "ca.pem"))) == 200
    assert asyncio.run(send(Credentials())) == 0


def test_closed_loop_counts_each_status() -> None:
    async def run() -> Tally:
        async with HttpServer(in_turn([response(), response(), response(503)])) as server:
            return await closed_loop(HttpClient(server.url, "/x"), body, 2, 0.05)

    tally = asyncio.run(run())
    assert tally.count(200) == 2
    assert tally.count(503) >= 1
    assert tally.total == tally.count(200) + tally.count(503)


def test_closed_loop_counts_lost_and_refused_connections() -> None:
    async def run() -> Tally:
        client = HttpClient(f"http://127.0.0.1:{free_ports(1)[0]}", "/x")
        return await closed_loop(client, body, 2, 0.05)

    tally = asyncio.run(run())
    assert tally.total == tally.count(0) > 0


def test_open_loop_counts_every_request_once() -> None:
    number = 0

    async def every_third_refused(_body: bytes) -> bytes:
        nonlocal number
        number += 1
        return response(429 if number % 3 == 0 else 200)

    async def run() -> tuple[Tally, list[bytes]]:
        async with HttpServer(every_third_refused) as server:
            times = [0.001 * i for i in range(90)]
            tally = await open_loop(HttpClient(server.url, "/x"), body, times, 30.0)
            return tally, server.bodies

    tally, bodies = asyncio.run(run())
    assert sorted(bodies) == sorted(body(n) for n in range(90))
    assert (tally.count(200), tally.count(429), tally.total) == (60, 30, 90)
    assert len(tally.late_s) == 90


def test_open_loop_sends_during_a_stall_and_charges_it_to_each_request() -> None:
    times = [0.0, 0.01, 0.02, 0.03]

    async def run() -> Tally:
        stalled = asyncio.Event()

        async def after_the_stall(_body: bytes) -> bytes:
            await stalled.wait()
            return response()

        async with HttpServer(after_the_stall) as server:
            client = HttpClient(server.url, "/x")
            sending = asyncio.create_task(open_loop(client, body, times, 30.0))
            await server.wait_for(len(times))  # all are sent although none was answered
            stalled.set()
            return await sending

    latencies = asyncio.run(run()).by_status[200]
    assert len(latencies) == 4
    # The stall ends after the last request was due: all requests waited at least until then.
    for latency_s, due_s in zip(sorted(latencies, reverse=True), times, strict=True):
        assert latency_s >= times[-1] - due_s


def test_open_loop_abandons_requests_without_an_answer() -> None:
    async def never(_body: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def run() -> tuple[Tally, Tally]:
        times = [0.001 * i for i in range(1, 31)]
        async with HttpServer(never) as server:
            client = HttpClient(server.url, "/x")
            unanswered = await open_loop(client, body, times, 0.05)
        return unanswered, await open_loop(client, body, times, 0.05)

    unanswered, refused = asyncio.run(run())
    for tally in (unanswered, refused):
        assert tally.count(0) == tally.total == len(tally.late_s) == 30
    assert min(unanswered.by_status[0]) >= 0.05
