"""Refusals of an overloaded tier: recorded in groups before they are sent, on both ways."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from shared.domain import State
from shared.errors import NotReady, Overloaded
from shared.ledger.entry import LedgerEntry
from shared.ledger.group_commit import GroupCommitWriter
from shared.ledger.outbox import Outbox
from shared.serving.tokens import new_token
from shared.tier_server.engine import Engine
from tests.support.outboxes import recorded_states
from tests.support.servers import RawConnection, post, post_chunked, run_with_server
from tests.support.tiers import create_edge, infer_body

ADMITTED = {"deadline_ms": 60_000}


@pytest.fixture(params=["application/json", "application/json; charset=utf-8"])
def content_type(request: pytest.FixtureRequest) -> str:
    """Content type of a request: the endpoint answers plain JSON, FastAPI the other one."""
    return str(request.param)


@pytest.fixture
def overloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every tier refuse requests, except those with the deadline of `ADMITTED`."""

    def refusal(_: Engine, deadline_ms: float) -> Overloaded | None:
        if deadline_ms == ADMITTED["deadline_ms"]:
            return None
        return Overloaded("the queue is full; try again in 2.4 s", limit=50, retry_after_s=2.4)

    monkeypatch.setattr(Engine, "congested", True)
    monkeypatch.setattr(Engine, "refusal", refusal)


class HeldRecords:
    """Holds back the calls of `GroupCommitWriter.record` that concern ``state``."""

    def __init__(self, patch: pytest.MonkeyPatch, state: State) -> None:
        self._released = asyncio.Event()
        self._changed = asyncio.Condition()
        self.count = 0
        record = GroupCommitWriter.record

        async def held(writer: GroupCommitWriter, entry: LedgerEntry) -> None:
            if entry.state is state:
                async with self._changed:
                    self.count += 1
                    self._changed.notify_all()
                await self._released.wait()
            await record(writer, entry)

        patch.setattr(GroupCommitWriter, "record", held)

    async def wait_for(self, count: int) -> None:
        """Wait until ``count`` calls are held back."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.count >= count)

    def release(self) -> None:
        """Make the calls that were held back, and hold back no more."""
        self._released.set()


async def send_and_receive(port: int, request: bytes) -> tuple[int, dict[str, str], Any]:
    """Send one request on a connection of its own."""
    connection = await RawConnection.open(port)
    connection.send(request)
    response = await connection.response()
    connection.close()
    return response


@pytest.mark.usefixtures("overloaded")
def test_refusals_carry_retry_after_and_are_recorded_in_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content_type: str
) -> None:
    written: list[int] = []
    received: list[int] = []
    record = Outbox.record

    def counted(outbox: Outbox, *entries: LedgerEntry) -> None:
        assert len(received) <= sum(written), "a refusal was sent before it was recorded"
        record(outbox, *entries)
        written.append(len(entries))

    monkeypatch.setattr(Outbox, "record", counted)

    async def client(_: uvicorn.Server, port: int) -> list[Any]:
        async def one(number: int) -> Any:
            request = post(infer_body(number), content_type=content_type)
            response = await send_and_receive(port, request)
            received.append(number)
            assert len(received) <= sum(written), "a refusal was sent before it was recorded"
            return response

        return list(await asyncio.gather(*(one(number) for number in range(20))))

    for status, headers, body in run_with_server(create_edge(tmp_path), client):
        assert status == 429
        assert headers["retry-after"] == "3"
        assert body["error"]["code"] == "overloaded"
    assert sum(written) == 20
    assert max(written) > 1
    assert recorded_states(tmp_path, "edge") == [("refused", "overloaded")] * 20


@pytest.mark.usefixtures("overloaded")
def test_endpoint_and_fastapi_send_the_same_refusal(tmp_path: Path) -> None:
    async def client(_: uvicorn.Server, port: int) -> list[Any]:
        responses = []
        for lines in ((), ("connection: close",)):
            for content_type in ("application/json", "application/json; charset=utf-8"):
                request = post(infer_body(len(responses)), *lines, content_type=content_type)
                response = await send_and_receive(port, request)
                response[1].pop("date")
                responses.append(response)
        return responses

    kept, kept_fastapi, closed, closed_fastapi = run_with_server(create_edge(tmp_path), client)
    assert kept == kept_fastapi
    assert list(kept[1]) == list(kept_fastapi[1])
    assert closed == closed_fastapi
    assert closed[1]["connection"] == "close"


@pytest.mark.usefixtures("overloaded")
def test_invalid_requests_are_answered_as_usual_during_overload(
    tmp_path: Path, content_type: str
) -> None:
    async def client(_: uvicorn.Server, port: int) -> list[int]:
        connection = await RawConnection.open(port)
        statuses = []
        for request in (
            post(infer_body(1, **ADMITTED), content_type=content_type),
            post(infer_body(2, colour="red"), content_type=content_type),
            post(b"{", content_type=content_type),
            post(b"", content_type=content_type),
            post_chunked([b"{"], content_type),
            b"GET /v1/infer HTTP/1.1\r\nhost: tier\r\n\r\n",
            post(infer_body(3), "content-encoding: identity", content_type=content_type),
            b"POST /v1/infer HTTP/1.1\r\nhost: tier\r\ncontent-length: 4194305\r\n\r\n",
        ):
            connection.send(request)
            statuses.append((await connection.response())[0])
        connection.close()
        return statuses

    statuses = run_with_server(create_edge(tmp_path), client)
    assert statuses == [200, 422, 422, 422, 422, 405, 429, 413]
    assert sorted(recorded_states(tmp_path, "edge")) == [
        ("answered", None),
        ("refused", "overloaded"),
    ]


@pytest.mark.usefixtures("overloaded")
def test_refusals_keep_the_connection_and_the_order(tmp_path: Path, content_type: str) -> None:
    async def client(_: uvicorn.Server, port: int) -> list[int]:
        connection = await RawConnection.open(port)
        bodies = [infer_body(0), b"{", infer_body(1, **ADMITTED), b"{"]
        connection.send(b"".join(post(body, content_type=content_type) for body in bodies))
        statuses = [(await connection.response())[0] for _ in bodies]
        connection.send(post(infer_body(2, text="long " * 100_000), content_type=content_type))
        statuses.append((await connection.response())[0])
        connection.close()
        return statuses

    assert run_with_server(create_edge(tmp_path), client) == [429, 422, 200, 422, 429]


@pytest.mark.usefixtures("overloaded")
def test_disconnected_client_is_recorded_and_others_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content_type: str
) -> None:
    async def client(server: uvicorn.Server, port: int) -> int:
        held = HeldRecords(monkeypatch, State.REFUSED)
        incomplete, leaving, staying = [await RawConnection.open(port) for _ in range(3)]
        incomplete.send(post(infer_body(2), content_type=content_type)[:-1])
        leaving.send(post(infer_body(0), content_type=content_type))
        await held.wait_for(1)
        staying.send(post(infer_body(1), content_type=content_type))
        await held.wait_for(2)
        incomplete.close()
        leaving.close()
        while len(server.server_state.connections) > 1:  # noqa: ASYNC110 (uvicorn has no event)
            await asyncio.sleep(0)
        held.release()
        status = (await staying.response())[0]
        staying.close()
        return status

    assert run_with_server(create_edge(tmp_path), client) == 429
    assert recorded_states(tmp_path, "edge") == [("refused", "overloaded")] * 2


@pytest.mark.usefixtures("overloaded")
def test_full_disk_is_answered_instead_of_the_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content_type: str
) -> None:
    def full(_: Outbox, *__: LedgerEntry) -> None:
        raise NotReady("the outbox cannot be written")

    async def client(_: uvicorn.Server, port: int) -> list[Any]:
        with monkeypatch.context() as patch:
            patch.setattr(Outbox, "record", full)
            request = post(infer_body(0), content_type=content_type)
            responses = [await send_and_receive(port, request)]
        request = post(infer_body(1), content_type=content_type)
        return [*responses, await send_and_receive(port, request)]

    on_full_disk, afterwards = run_with_server(create_edge(tmp_path), client)
    assert on_full_disk[0] == 503
    assert on_full_disk[2]["error"]["code"] == "not_ready"
    assert afterwards[0] == 429
    assert recorded_states(tmp_path, "edge") == [("refused", "overloaded")]


@pytest.mark.usefixtures("overloaded")
def test_authentication_comes_before_the_refusal_and_counts_once(
    tmp_path: Path, content_type: str
) -> None:
    file = tmp_path / "tokens.jsonl"
    secret = new_token(file, "mobile", ["infer"])[0]
    other = new_token(file, "reader", ["ledger:read"])[0]
    app = create_edge(tmp_path, tokens=file, rate_limit=1e-6, rate_burst=5)

    async def client(_: uvicorn.Server, port: int) -> list[Any]:
        connection = await RawConnection.open(port)
        responses: list[Any] = []
        for token in (None, "wrong", other, secret, secret, secret, secret, secret, secret):
            lines = [] if token is None else [f"authorization: Bearer {token}"]
            fields = ADMITTED if len(responses) == 4 else {}
            body = infer_body(len(responses), **fields)
            connection.send(post(body, *lines, content_type=content_type))
            status, headers, answer = await connection.response()
            code = answer["error"]["code"] if "error" in answer else "answered"
            responses.append((status, code, headers.get("www-authenticate")))
        connection.close()
        return responses

    responses = run_with_server(app, client)
    assert [one[:2] for one in responses] == [
        (401, "unauthorised"),
        (401, "unauthorised"),
        (403, "forbidden"),
        (429, "overloaded"),
        (200, "answered"),
        *[(429, "overloaded")] * 3,
        (429, "rate_limited"),
    ]
    assert responses[0][2] == 'bearer realm="dimee"'


@pytest.mark.usefixtures("overloaded")
def test_shutdown_waits_for_refusals_and_incomplete_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content_type: str
) -> None:
    async def client(server: uvicorn.Server, port: int) -> list[str | None]:
        refused, idle, incomplete = [await RawConnection.open(port) for _ in range(3)]
        idle.send(post(infer_body(0), content_type=content_type))
        await idle.response()
        held = HeldRecords(monkeypatch, State.REFUSED)
        whole = post(infer_body(1, **ADMITTED), content_type=content_type)
        incomplete.send(whole[:-1])
        refused.send(post(infer_body(2), content_type=content_type))
        await held.wait_for(1)
        while len(server.server_state.tasks) < 2:  # noqa: ASYNC110 (uvicorn has no event)
            await asyncio.sleep(0)
        for connection in list(server.server_state.connections):
            connection.shutdown()
        assert await idle.closed_by_server()
        held.release()
        incomplete.send(whole[-1:])
        ends = [(await one.response())[1].get("connection") for one in (refused, incomplete)]
        assert await refused.closed_by_server()
        assert await incomplete.closed_by_server()
        return ends

    assert run_with_server(create_edge(tmp_path), client) == ["close", "close"]


def test_admitted_requests_count_as_waiting_before_they_are_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content_type: str
) -> None:
    """Three requests arrive before the first is in the queue, which holds two."""

    async def client(_: uvicorn.Server, port: int) -> list[int]:
        held = HeldRecords(monkeypatch, State.OPEN)
        connections = [await RawConnection.open(port) for _ in range(4)]
        for number, one in enumerate(connections[:2]):
            one.send(post(infer_body(number), content_type=content_type))
        await held.wait_for(2)
        connections[2].send(post(infer_body(2), content_type=content_type))
        refused = (await connections[2].response())[0]
        held.release()
        statuses = [refused, *[(await one.response())[0] for one in connections[:2]]]
        connections[3].send(post(infer_body(3), content_type=content_type))
        statuses.append((await connections[3].response())[0])
        for one in connections:
            one.close()
        return statuses

    app = create_edge(tmp_path, max_queue=2)
    assert run_with_server(app, client) == [429, 200, 200, 200]
