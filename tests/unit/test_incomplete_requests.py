"""Requests that are refused or end before they have arrived: slots, status and resets."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mobile_client.gateway.app import create_app
from mobile_client.local.runtime import LocalRuntime
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.domain import State
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from shared.serving.body_limit import BodyLimit
from shared.serving.connection import ConnectionLimits
from tests.support.echo import Echo
from tests.support.paths import BUNDLE, free_ports
from tests.support.servers import RawConnection, post, run_with_server

LARGE = 8_000_000
"""Bytes of a body that is larger than the buffers of a connection."""
CALL = {"texts": ["a fine film"], "policy": "mobile", "mode": "only-on-device"}


def settings(folder: Path, **given: int) -> MobileSettings:
    ledger, edge, cloud = (f"http://127.0.0.1:{port}" for port in free_ports(3))
    urls = {"ledger_url": ledger, "edge_url": edge, "cloud_url": cloud}
    return MobileSettings(bundle=BUNDLE, state_dir=folder, **urls, **given)


def test_incomplete_calls_take_no_slot_of_the_gateway(tmp_path: Path) -> None:
    async def client(_: object, port: int) -> list[int]:
        waiting = [await RawConnection.open(port) for _ in range(8)]
        for connection in waiting:
            connection.send(post(CALL, path="/v1/classify")[:-50])
        complete = await RawConnection.open(port)
        statuses = []
        for _ in range(3):
            complete.send(post(CALL, path="/v1/classify"))
            statuses.append((await complete.response())[0])
        waiting[0].send(post(CALL, path="/v1/classify")[-50:])
        statuses.append((await waiting[0].response())[0])
        for connection in (*waiting, complete):
            connection.close()
        return statuses

    app = create_app(settings(tmp_path, max_queue=2))
    assert run_with_server(app, client) == [200] * 4


def test_pipelined_calls_and_a_hang_up_leave_no_traceback_and_no_open_attempt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, ended = asyncio.Event(), asyncio.Event()
    classify, local = MobileService.classify, LocalRuntime.answer

    async def noted(*given: Any, **named: Any) -> Any:
        try:
            return await classify(*given, **named)
        finally:
            ended.set()

    async def answer(*given: Any, **named: Any) -> Any:
        began.set()  # the attempt is recorded
        return await local(*given, **named)

    monkeypatch.setattr(MobileService, "classify", noted)
    monkeypatch.setattr(LocalRuntime, "answer", answer)

    async def client(_: object, port: int) -> None:
        connection = await RawConnection.open(port)
        connection.send(post(CALL | {"texts": ["fine"] * 300}, path="/v1/classify") * 3)
        await began.wait()
        connection.close()
        await ended.wait()

    with caplog.at_level(logging.ERROR):
        run_with_server(create_app(settings(tmp_path)), client)
    assert caplog.text == ""
    outbox = Outbox.claim(tmp_path / "mobile", "mobile")
    last = {
        entry.attempt_id: entry.state
        for row in outbox.pending(100_000)
        for entry in [LedgerEntry.model_validate_json(row[3])]
    }
    outbox.close()
    assert 0 < len(last) <= 300, "the second and third call never began"
    assert State.OPEN not in last.values()


def by_raw(url: str, chunked: bool) -> int:
    async def send() -> int:
        connection = await RawConnection.open(int(url.rpartition(":")[2].split("/")[0]))
        head = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % LARGE
        connection.send(b"POST / HTTP/1.1\r\nhost: tier\r\n" + head + b"\r\n\r\n")
        block = b"a" * 1_000_000
        for _ in range(LARGE // len(block)):
            connection.send(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
            await connection.writer.drain()
        connection.send(b"0\r\n\r\n" if chunked else b"")
        status, headers, _ = await connection.response()
        assert headers["connection"] == "close"
        assert await connection.closed_by_server()
        connection.close()
        return status

    return asyncio.run(send())


def pieces() -> Iterator[bytes]:
    yield from [b"a" * 1_000_000] * (LARGE // 1_000_000)


def by_httpx(url: str, chunked: bool) -> int:
    with httpx.Client(trust_env=False, timeout=30) as http:
        return http.post(url, content=pieces() if chunked else b"a" * LARGE).status_code


def by_urllib(url: str, chunked: bool) -> int:
    request = urllib.request.Request(url, pieces() if chunked else b"a" * LARGE, method="POST")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return int(opener.open(request, timeout=30).status)
    except urllib.error.HTTPError as error:
        code = json.loads(error.read())["error"]["code"]
        return error.code if code == "too_large" else 0


def by_curl(url: str, chunked: bool) -> int:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    extra = ["-H", "transfer-encoding: chunked"] if chunked else ["-H", "expect:"]
    command = [curl, "-sS", "--noproxy", "*", "-m", "30", "-o", "/dev/null", "-w", "%{http_code}"]
    found = subprocess.run(
        [*command, "--data-binary", "@-", *extra, url],
        input=b"a" * LARGE,
        capture_output=True,
        check=True,
    )
    return int(found.stdout)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("send", [by_raw, by_httpx, by_urllib, by_curl])
def test_clients_read_the_413_of_a_large_body(send: Callable[..., int], chunked: bool) -> None:
    async def client(_: object, port: int) -> int:
        return await asyncio.to_thread(send, f"http://127.0.0.1:{port}/", chunked)

    assert run_with_server(BodyLimit(Echo(), max_bytes=1_000, max_values=10), client) == 413


def test_body_of_a_probe_is_not_read(tmp_path: Path) -> None:
    """A GET may have a body; the answer does not wait for it."""

    async def client(_: object, port: int) -> int:
        connection = await RawConnection.open(port)
        connection.send(b"GET /healthz HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n")
        status, _, _ = await connection.response()
        connection.send(b"123456789")
        assert await connection.closed_by_server()
        connection.close()
        return status

    assert run_with_server(create_app(settings(tmp_path)), client) == 200


def test_bodies_that_are_arriving_share_a_limit() -> None:
    echo = Echo()

    async def client(_: object, port: int) -> list[int]:
        connections = [await RawConnection.open(port) for _ in range(3)]
        for connection in connections[:2]:
            connection.send(post(b"a" * 1_000)[:-500])
        refused = connections[1]
        status, _, answer = await refused.response()
        # by the field, a caller knows that the request was not read
        assert answer["error"]["field"] == "body"
        statuses = [status]
        connections[0].send(b"a" * 500)
        statuses.append((await connections[0].response())[0])
        connections[2].send(post(b"a" * 1_000))
        statuses.append((await connections[2].response())[0])
        for connection in connections:
            connection.close()
        return statuses

    app = BodyLimit(echo, max_bytes=2_000, max_values=10, max_incomplete_bytes=900)
    assert run_with_server(app, client, ConnectionLimits()) == [429, 200, 200]
