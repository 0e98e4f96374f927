"""The straight way of a tier gives the answers of the ordinary one, and ends with its caller."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from shared.domain import State
from shared.ledger.entry import LedgerEntry
from shared.ledger.group_commit import GroupCommitWriter
from shared.tier_server.app import TierService
from shared.tier_server.engine import Computed, Engine
from shared.wire import InferRequest
from tests.support.outboxes import booked
from tests.support.overload import body, edge, talk
from tests.support.servers import Raw, post

MEASURED = {"queue_ms", "compute_ms", "tier_ms"}
WAYS = ("/v1/infer", "/v1/infer?ordinary")
ASKED = [
    body(0),
    body(1, text=""),
    body(2, text="\u200b"),
    body(3, pair="and another"),
    body(4, text="long " * 5000),
    body(5, bundle_id="another"),
    body(6, deadline_ms=1e-6),
    body(7, colour="red"),
    body(8, text=7),
    b"[]",
    b"\xff",
]


@pytest.fixture
def straight(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The attempts that took the lane; grows while a test runs."""
    taken: list[str] = []
    take = TierService.take

    def counted(self: TierService, request: InferRequest, tell: Any) -> Any:
        taken.append(request.attempt_id)
        return take(self, request, tell)

    monkeypatch.setattr(TierService, "take", counted)
    return taken


def test_the_answers_are_those_of_the_ordinary_way(tmp_path: Path, straight: list[str]) -> None:
    async def both_ways(_: uvicorn.Server, port: int) -> list[list[Any]]:
        found = []
        for asked in ASKED:
            pair = []
            for path in WAYS:
                raw = await Raw.to(port)
                raw.send(post(asked, path=path))
                status, headers, answer = await raw.answer()
                pair.append((status, list(headers), headers["content-type"], settled(answer)))
                raw.close()
            found.append(pair)
        return found

    found = talk(edge(tmp_path), both_ways)
    assert [one[0][0] for one in found] == [200, 422, 422, 422, 413, 409, 504, 422, 422, 422, 422]
    for one, other in found:
        assert one == other
    assert straight == [f"a{number}" for number in range(7)]


def settled(answer: dict[str, Any]) -> dict[str, Any]:
    """Without what two runs of the same need not share."""
    if answer.get("error", {}).get("code") == "deadline_exceeded":
        return {"code": answer["error"]["code"]}
    return {name: value for name, value in answer.items() if name not in MEASURED}


def test_what_nobody_expected_is_logged_without_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> Computed:
        raise ValueError("fine")

    monkeypatch.setattr(Engine, "run", broken)

    async def both_ways(_: uvicorn.Server, port: int) -> list[Any]:
        found = []
        for number, path in enumerate(WAYS):
            raw = await Raw.to(port)
            raw.send(post(body(number), path=path))
            status, _, answer = await raw.answer()
            found.append((status, answer))
            raw.close()
        return found

    one, other = talk(edge(tmp_path), both_ways)
    assert one == other
    assert one[0] == 500
    assert one[1]["error"]["code"] == "internal"
    assert caplog.text.count("ValueError") == 2
    assert "fine" not in caplog.text
    assert booked(tmp_path, "edge") == [("failed", "internal")] * 2


def test_who_hangs_up_is_not_worked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang_up(_: uvicorn.Server, port: int) -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def slow(*_: object) -> Computed:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError

        monkeypatch.setattr(Engine, "run", slow)
        raw = await Raw.to(port)
        raw.send(post(body(0)))
        await begun.wait()
        raw.close()
        await ended.wait()

    talk(edge(tmp_path), hang_up)
    assert booked(tmp_path, "edge") == [("abandoned", None)]


def test_who_is_on_the_way_to_the_queue_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three come while nothing is in the queue yet, which has two places."""

    async def crowd(_: uvicorn.Server, port: int) -> list[int]:
        held: list[Callable[[], None]] = []
        both = asyncio.Event()
        record = GroupCommitWriter.record

        def slow(self: GroupCommitWriter, entry: LedgerEntry, tell: Any) -> None:
            if entry.state is State.OPEN:
                held.append(partial(record, self, entry, tell))
                if len(held) == 2:
                    both.set()
            else:
                record(self, entry, tell)

        monkeypatch.setattr(GroupCommitWriter, "record", slow)
        waiting = [await Raw.to(port) for _ in range(4)]
        for number, raw in enumerate(waiting[:2]):
            raw.send(post(body(number)))
        await both.wait()
        waiting[2].send(post(body(2)))
        refused = (await waiting[2].answer())[0]
        monkeypatch.setattr(GroupCommitWriter, "record", record)
        for go_on in held:
            go_on()
        statuses = [refused, *[(await raw.answer())[0] for raw in waiting[:2]]]
        waiting[3].send(post(body(3)))  # the places are free again
        statuses.append((await waiting[3].answer())[0])
        for raw in waiting:
            raw.close()
        return statuses

    assert talk(edge(tmp_path, max_queue=2), crowd) == [429, 200, 200, 200]


def test_a_shutdown_waits_for_what_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stop(server: uvicorn.Server, port: int) -> tuple[int, str | None]:
        begun, go_on = asyncio.Event(), asyncio.Event()
        run = Engine.run

        async def held(self: Engine, *asked: Any) -> Computed:
            begun.set()
            await go_on.wait()
            return await run(self, *asked)

        monkeypatch.setattr(Engine, "run", held)
        raw = await Raw.to(port)
        raw.send(post(body(0)))
        await begun.wait()
        for connection in list(server.server_state.connections):
            connection.shutdown()
        assert server.server_state.tasks
        go_on.set()
        status, headers, answer = await raw.answer()
        assert await raw.ended()
        assert json.dumps(answer)
        return status, headers.get("connection")

    assert talk(edge(tmp_path), stop) == (200, "close")
    assert booked(tmp_path, "edge") == [("answered", None)]
