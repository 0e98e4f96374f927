"""A refusal in an overload: in the protocol, and booked with others before it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from shared.errors import NotReady, Overloaded
from shared.ledger.entry import LedgerEntry
from shared.ledger.group_commit import GroupCommitWriter
from shared.ledger.outbox import Outbox
from shared.serving.protocol import LaneProtocol
from shared.serving.tokens import new_token
from shared.tier_server.engine import Computed, Engine
from tests.support.outboxes import booked
from tests.support.overload import LET_IN, REFUSED, body, edge, talk
from tests.support.servers import Raw, post


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the refusals that the protocol answered; grows while a test runs."""
    answered: list[int] = []
    answer = LaneProtocol.answer

    def counted(self: LaneProtocol, cycle: Any, error: Any) -> None:
        if not isinstance(error, bytes):
            answered.append(error.status)
        answer(self, cycle, error)

    monkeypatch.setattr(LaneProtocol, "answer", counted)
    return answered


@pytest.fixture(autouse=True)
def congestion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tier believes that it is congested; 60 s of deadline are let in."""

    def refusal(_: Engine, deadline_ms: float) -> Overloaded | None:
        return None if deadline_ms == LET_IN["deadline_ms"] else REFUSED

    monkeypatch.setattr(Engine, "congested", True)
    monkeypatch.setattr(Engine, "refusal", refusal)


class Counter:
    """Counts the calls of a method, and wakes who waits for them."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: type, method: str) -> None:
        self.calls: list[Callable[[], None]] = []
        self._changed = asyncio.Condition()
        self._held = False
        original = getattr(owner, method)

        def counted(*args: Any) -> None:
            call = partial(original, *args)
            if not self._held:
                call()
            self.calls.append(call)
            self._woken = asyncio.ensure_future(self._wake())

        patch.setattr(owner, method, counted)

    def hold(self) -> None:
        """Make no call from now on, until `let_go`."""
        self._held = True

    def let_go(self) -> None:
        """Make the calls that were held."""
        self._held = False
        for call in self.calls:
            call()

    async def reaches(self, count: int) -> None:
        """Wait for so many calls."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.calls) >= count)

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def hold(patch: pytest.MonkeyPatch) -> Counter:
    """Keep refusals from being booked."""
    counter = Counter(patch, GroupCommitWriter, "record")
    counter.hold()
    return counter


def test_refusals_say_when_to_come_back_and_are_booked_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: list[int]
) -> None:
    written: list[int] = []
    record = Outbox.record

    def counted(outbox: Outbox, *entries: LedgerEntry) -> None:
        assert len(quick) == sum(written)  # nobody is told what is not booked
        written.append(len(entries))
        record(outbox, *entries)

    monkeypatch.setattr(Outbox, "record", counted)

    async def one(port: int, number: int) -> tuple[int, dict[str, str], Any]:
        raw = await Raw.to(port)
        raw.send(post(body(number)))
        answer = await raw.answer()
        raw.close()
        return answer

    async def crowd(_: uvicorn.Server, port: int) -> list[Any]:
        return list(await asyncio.gather(*(one(port, number) for number in range(20))))

    for status, headers, answer in talk(edge(tmp_path), crowd):
        assert status == 429
        assert headers["retry-after"] == "2"
        assert answer["error"]["code"] == "overloaded"
    assert quick == [429] * 20
    assert sum(written) == 20
    assert max(written) > 1
    assert booked(tmp_path, "edge") == [("refused", "overloaded")] * 20


def test_it_is_the_answer_of_the_ordinary_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: list[int]
) -> None:
    async def refused(*_: object) -> Computed:
        raise REFUSED

    monkeypatch.setattr(Engine, "run", refused)

    async def both(_: uvicorn.Server, port: int) -> list[Any]:
        raw = await Raw.to(port)
        found = []
        for number, lines in enumerate([(), ("connection: close",)]):
            for path in ("/v1/infer", "/v1/infer?ordinary"):
                raw = await Raw.to(port)
                raw.send(post(body(number), *lines, path=path))
                found.append(await raw.answer())
                found[-1][1].pop("date")
                raw.close()
        return found

    kept, ordinarily_kept, closed, ordinarily_closed = talk(edge(tmp_path), both)
    assert quick == [429] * 2
    assert kept == ordinarily_kept
    assert list(kept[1]) == list(ordinarily_kept[1])
    assert closed == ordinarily_closed
    assert closed[1]["connection"] == "close"


def test_who_is_let_in_or_wrong_or_unusual_goes_on_as_it_came(
    tmp_path: Path, quick: list[int]
) -> None:
    chunked = (
        b"POST /v1/infer HTTP/1.1\r\nhost: tier\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n\r\n"
    )

    async def all_on_one_connection(_: uvicorn.Server, port: int) -> list[int]:
        raw = await Raw.to(port)
        statuses = []
        for request in (
            post(body(1, **LET_IN)),
            post(body(2, colour="red")),
            post(b"{"),
            post(b""),
            chunked,
            b"GET /v1/infer HTTP/1.1\r\nhost: tier\r\n\r\n",
            post(body(3), "content-encoding: identity"),
            b"POST /v1/infer HTTP/1.1\r\nhost: tier\r\ncontent-length: 4194305\r\n\r\n",
        ):
            raw.send(request)
            statuses.append((await raw.answer())[0])
        raw.close()
        return statuses

    statuses = talk(edge(tmp_path), all_on_one_connection)
    assert statuses == [200, 422, 422, 422, 422, 405, 429, 413]
    assert quick == [429]
    assert sorted(booked(tmp_path, "edge")) == [("answered", None), ("refused", "overloaded")]


def test_a_connection_is_kept_however_the_bytes_come(tmp_path: Path, quick: list[int]) -> None:
    async def again_and_again(_: uvicorn.Server, port: int) -> list[int]:
        raw = await Raw.to(port)
        statuses = []
        for number in range(3):
            whole = post(body(number, text="long " * 100_000 if number == 1 else "fine"))
            if number == 2:
                raw.writer.get_extra_info("socket").setsockopt(6, 1, 1)  # no delay
                for at in range(len(whole)):
                    raw.send(whole[at : at + 1])
                    await asyncio.sleep(0)
            else:
                raw.send(whole)
            statuses.append((await raw.answer())[0])
        raw.send(post(body(3, **LET_IN)))
        statuses.append((await raw.answer())[0])
        raw.close()
        return statuses

    assert talk(edge(tmp_path), again_and_again) == [429, 429, 429, 200]
    assert quick == [429] * 3


def test_what_is_pipelined_behind_a_refusal_is_answered_after_it(
    tmp_path: Path, quick: list[int]
) -> None:
    async def at_once(_: uvicorn.Server, port: int) -> list[int]:
        raw = await Raw.to(port)
        raw.send(post(body(0)) + post(b"{") + post(body(1, **LET_IN)) + post(b"{"))
        statuses = [(await raw.answer())[0] for _ in range(4)]
        raw.send(post(body(2)))
        statuses.append((await raw.answer())[0])
        raw.close()
        return statuses

    assert talk(edge(tmp_path), at_once) == [429, 422, 200, 422, 429]
    assert quick == [429] * 2


def test_who_hangs_up_is_booked_and_the_others_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: list[int]
) -> None:
    async def one_leaves(_: uvicorn.Server, port: int) -> int:
        held, lost = hold(monkeypatch), Counter(monkeypatch, LaneProtocol, "connection_lost")
        half, leaving, staying = [await Raw.to(port) for _ in range(3)]
        half.send(post(body(2))[:-1])
        leaving.send(post(body(0)))
        await held.reaches(1)
        staying.send(post(body(1)))
        await held.reaches(2)
        half.close()
        leaving.close()
        await lost.reaches(2)
        held.let_go()
        status = (await staying.answer())[0]
        staying.close()
        return status

    assert talk(edge(tmp_path), one_leaves) == 429
    assert quick == [429]
    assert booked(tmp_path, "edge") == [("refused", "overloaded")] * 2


def test_a_full_disk_is_told_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: list[int]
) -> None:
    def full(_: Outbox, *__: LedgerEntry) -> None:
        raise NotReady("the outbox cannot be written")

    async def ask(_: uvicorn.Server, port: int) -> Any:
        raw = await Raw.to(port)
        with monkeypatch.context() as patch:
            patch.setattr(Outbox, "record", full)
            raw.send(post(body(0)))
            answers = [await raw.answer()]
        raw.send(post(body(1)))
        answers.append(await raw.answer())
        raw.close()
        return answers

    on_full, after = talk(edge(tmp_path), ask)
    assert on_full[0] == 503
    assert on_full[2]["error"]["code"] == "not_ready"
    assert after[0] == 429
    assert quick == [503, 429]
    assert booked(tmp_path, "edge") == [("refused", "overloaded")]


def test_a_door_comes_before_a_refusal_and_counts_once(tmp_path: Path, quick: list[int]) -> None:
    file = tmp_path / "tokens.json"
    secret = new_token(file, "mobile", ["infer"])[0]
    other = new_token(file, "reader", ["ledger:read"])[0]
    app = edge(tmp_path, tokens=file, rate_limit=1e-6, rate_burst=5)

    async def ask(_: uvicorn.Server, port: int) -> list[Any]:
        raw = await Raw.to(port)
        found = []
        for shown in (None, "wrong", other, secret, secret, secret, secret, secret, secret):
            lines = [] if shown is None else [f"authorization: Bearer {shown}"]
            more = LET_IN if len(found) == 4 else {}
            raw.send(post(body(len(found), **more), *lines))
            status, headers, answer = await raw.answer()
            code = answer["error"]["code"] if "error" in answer else "answered"
            found.append((status, code, headers.get("www-authenticate")))
        raw.close()
        return found

    found = talk(app, ask)
    assert [one[:2] for one in found] == [
        (401, "unauthorised"),
        (401, "unauthorised"),
        (403, "forbidden"),
        (429, "overloaded"),
        (200, "answered"),
        *[(429, "overloaded")] * 3,
        (429, "rate_limited"),
    ]
    assert found[0][2] == 'bearer realm="dimee"'
    assert quick == [429] * 4


def test_a_shutdown_waits_for_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: list[int]
) -> None:
    async def stop(server: uvicorn.Server, port: int) -> list[str | None]:
        begun = Counter(monkeypatch, LaneProtocol, "on_headers_complete")
        raw, idle, half = [await Raw.to(port) for _ in range(3)]
        idle.send(post(body(0)))
        await idle.answer()
        held = hold(monkeypatch)
        whole = post(body(1, **LET_IN))
        half.send(whole[:-1])
        raw.send(post(body(2)))
        await begun.reaches(3)
        await held.reaches(1)
        for connection in list(server.server_state.connections):
            connection.shutdown()
        assert await idle.ended()
        held.let_go()
        half.send(whole[-1:])
        ends = [(await one.answer())[1].get("connection") for one in (raw, half)]
        assert await raw.ended()
        assert await half.ended()
        return ends

    assert talk(edge(tmp_path), stop) == ["close", "close"]
    assert quick == [429] * 2
