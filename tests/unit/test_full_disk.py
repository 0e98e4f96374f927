"""On a full disk no answer is given without its entries; recovery needs no restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from edge_server.app import create_app as create_edge
from edge_server.settings import EdgeSettings
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.domain import State
from shared.errors import DimeeError, LedgerUnavailable, NotReady
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.verify import verify
from shared.wire import InferRequest
from tests.support.entries import caller, tier
from tests.support.paths import BUNDLE
from tests.support.small_disk import SmallDisk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    small_disk = SmallDisk(folder, 8)
    yield small_disk
    small_disk.close()


def entries(outbox: Outbox) -> list[LedgerEntry]:
    return [LedgerEntry.model_validate_json(row[3]) for row in outbox.pending(100_000)]


def until_refused(work: Callable[[int], object]) -> int:
    """Return the number of times that ``work`` succeeded before it failed."""
    for number in range(100_000):
        try:
            work(number)
        except NotReady:
            return number
    raise AssertionError("the disk was never full")


def test_entries_recorded_before_the_disk_was_full_are_kept(disk: SmallDisk) -> None:
    outbox = Outbox.claim(disk.folder, "mobile")
    with disk.full():
        recorded_count = until_refused(lambda i: outbox.record(caller(f"a{i}", request_id=f"r{i}")))
        outbox.record_or_buffer(caller("kept", request_id="kept"))
        assert recorded_count > 0
        assert outbox.count_pending() == recorded_count + 1, "on disk or in memory"
    outbox.maintain()
    outbox.record(caller("after", request_id="after"))
    outbox.close()
    again = Outbox.claim(disk.folder, "mobile")
    names = {entry.attempt_id for entry in entries(again)}
    assert names == {"kept", "after", *(f"a{i}" for i in range(recorded_count))}
    again.close()


def test_delivery_continues_on_a_full_disk(disk: SmallDisk) -> None:
    outbox = Outbox.claim(disk.folder, "mobile")
    with disk.full():
        until_refused(lambda i: outbox.record(caller(f"a{i}", request_id=f"r{i}")))
        number = 0
        while not outbox._buffered:  # a shorter one may just have fitted in
            number += 1
            outbox.record_or_buffer(caller(f"kept{number}"))
        assert outbox.pending(1)[0][0] == f"kept{number}"
        outbox.mark_delivered([row[:3] for row in outbox.pending(1)])
        assert f"kept{number}" not in {entry.attempt_id for entry in entries(outbox)}
    outbox.close()


def test_mobile_gives_no_answer_that_it_cannot_record(disk: SmallDisk) -> None:
    settings = MobileSettings(state_dir=disk.folder, bundle=BUNDLE, policy="mobile")

    async def fill_and_recover() -> tuple[int, list[LedgerEntry]]:
        mobile = MobileService(settings)
        answered = 0
        with disk.full():
            for _ in range(100_000):
                (got,) = await mobile.classify(["a fine film"])
                if isinstance(got, DimeeError):
                    break
                answered += 1
            assert answered > 0
            assert isinstance(got, NotReady), "the error is a 503 with a reason"
            assert got.status == 503
        while mobile.outbox.refuses:
            await asyncio.to_thread(time.sleep, 0.01)  # the shipper's thread tries it
        (after,) = await mobile.classify(["a fine film"])
        assert not isinstance(after, DimeeError)
        mobile.outbox.maintain()
        recorded = entries(mobile.outbox)
        await mobile.close(0.0)
        return answered + 1, recorded

    answered, recorded = asyncio.run(fill_and_recover())
    store = LedgerStore(f"sqlite:///{disk.folder.parent / 'ledger.sqlite'}")
    store.upsert(recorded)
    report = verify(store)
    assert report.consistent, report
    ended = [e for e in recorded if e.final and e.state is State.ANSWERED]
    assert len(ended) == answered
    store.close()


def test_edge_on_a_full_disk_answers_503_and_records_the_refusal(disk: SmallDisk) -> None:
    app = create_edge(EdgeSettings(state_dir=disk.folder, bundle=BUNDLE, workers=1))

    def ask(http: TestClient, number: int) -> tuple[int, str]:
        request = InferRequest(
            request_id=f"r{number}", attempt_id=f"a{number}", ordinal=1, text="a fine film",
            deadline_ms=5_000,
        )  # fmt: skip
        answer = http.post("/v1/infer", json=request.model_dump(mode="json"))
        return answer.status_code, answer.text

    with TestClient(app) as http:
        with disk.full():
            number = 0
            while (said := ask(http, number))[0] == 200:
                number += 1
        assert number > 0
        assert said[0] == 503
        assert "free disk space" in said[1]
        while http.get("/readyz").status_code != 200:
            time.sleep(0.01)
        assert ask(http, number + 1)[0] == 200
    outbox = Outbox.claim(disk.folder / "edge", "edge")
    states = {entry.attempt_id: entry.state for entry in entries(outbox)}
    assert states.pop(f"a{number}") is State.REFUSED
    assert set(states) == {f"a{i}" for i in range(number + 2) if i != number}
    assert set(states.values()) == {State.ANSWERED}
    outbox.close()


def test_ledger_on_a_full_disk_stores_nothing_and_recovers(disk: SmallDisk) -> None:
    """A delivery is stored whole or not at all, and the outbox sends it again."""
    store = LedgerStore(f"sqlite:///{disk.folder / 'ledger.sqlite'}")

    def delivery(number: int) -> list[LedgerEntry]:
        names = [(f"a{number}-{i}", f"r{number}-{i}") for i in range(100)]
        return [side(a, request_id=r) for a, r in names for side in (caller, tier)]

    stored = 0
    with disk.full():
        while stored < 10_000:
            try:
                store.upsert(delivery(stored))
            except LedgerUnavailable:
                break
            stored += 1
    assert stored > 0
    assert verify(store).caller_rows == stored * 100
    assert store.upsert(delivery(stored)).stored == 200
    assert verify(store).consistent
    with store.connect() as connection:
        assert connection.execute(sa.text("PRAGMA integrity_check")).scalar_one() == "ok"
    store.close()
