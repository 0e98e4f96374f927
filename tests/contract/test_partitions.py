"""Days of entries: partitions of PostgreSQL, and reports of one day in both stores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.domain import State
from shared.errors import InvalidInput
from shared.ids import day_of, first_id, new_id
from shared.ledger.entry import LedgerEntry
from shared.ledger.server import partitions
from shared.ledger.server import prune as prune_module
from shared.ledger.server.bulk_insert import insert_entries
from shared.ledger.server.partitions import OTHER, UNDATED, existing_days, partition_of
from shared.ledger.server.prune import prune
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.transfer import export_entries, import_entries
from shared.ledger.server.verify import verify
from tests.support.entries import caller, tier

DAY_S = 86_400.0
TODAY = datetime.fromtimestamp(time.time(), UTC).date()


@pytest.fixture
def postgresql(request: pytest.FixtureRequest, store: LedgerStore) -> LedgerStore:
    """The store in PostgreSQL."""
    if store.dialect != "postgresql":
        pytest.skip("SQLite has no partitions")
    return store


def id_of(day: date, number: int = 0) -> str:
    """Return an identifier of a day."""
    return f"{first_id(day)}7{number:03x}8{number:015x}"


def pair(day: date, number: int = 0, **facts: object) -> tuple[LedgerEntry, LedgerEntry]:
    """Return both sides of the only attempt of a request of a day."""
    name = {"request_id": id_of(day, number)} | facts
    attempt = id_of(day, number)
    return caller(attempt, **name), tier(attempt, **name)


def count(store: LedgerStore, table: str) -> int:
    with store.connect() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


def days(store: LedgerStore) -> list[date]:
    with store.connect() as connection:
        return existing_days(connection)


IDENTIFIERS = st.one_of(
    st.builds(id_of, st.dates(date(1971, 1, 1), date(2300, 1, 1)), st.integers(0, 4095)),
    st.from_regex(r"[0-9a-f]{12}[47][0-9a-f]{3}[7-9a-c][0-9a-f]{15,16}", fullmatch=True),
    st.sampled_from(["a1", "", "f" * 12 + "7" + "0" * 3 + "8" + "0" * 15, id_of(TODAY) + "\n"]),
)


@given(names=st.lists(IDENTIFIERS, min_size=50, max_size=200))
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_day_of_an_identifier_is_the_same_here_and_in_postgresql(
    postgresql: LedgerStore, names: list[str]
) -> None:
    query = sa.text(
        "SELECT entry_day(name) FROM unnest(CAST(:names AS text[])) WITH ORDINALITY AS t(name, n)"
        " ORDER BY n"
    )
    with postgresql.connect() as connection:
        found = list(connection.scalars(query, {"names": names}))
    assert found == [day_of(name) or UNDATED for name in names]


def test_attempts_have_the_day_of_their_request() -> None:
    request = id_of(date(2026, 3, 1))
    assert day_of(new_id(of=request)) == date(2026, 3, 1)
    assert day_of(new_id()) in (TODAY, datetime.fromtimestamp(time.time(), UTC).date())
    assert day_of(new_id(of="a")) is not None
    assert new_id(of=request) != new_id(of=request)


def test_each_entry_is_in_the_partition_of_its_day(postgresql: LedgerStore) -> None:
    yesterday, far = TODAY - timedelta(1), TODAY + timedelta(3000)
    for entries in (pair(yesterday), pair(TODAY), pair(far), (caller(), tier())):
        assert postgresql.upsert(entries).stored == 2
    for table in (partition_of(yesterday), partition_of(TODAY), OTHER, "entries_undated"):
        assert count(postgresql, table) == 2
    assert days(postgresql) == [yesterday, TODAY, TODAY + timedelta(1)]
    assert len(list(postgresql.entries())) == 8


def test_repeated_delivery_finds_its_entry_wherever_it_is(store: LedgerStore) -> None:
    far = TODAY + timedelta(3000)
    delivered = [*pair(TODAY), *pair(far), caller(), tier()]
    opened = caller(id_of(TODAY), request_id=id_of(TODAY), state=State.OPEN, delivery=None,
                    final=False)  # fmt: skip
    assert store.upsert([opened]).stored == 1
    assert store.upsert(delivered).stored == 6
    again = store.upsert([*delivered, opened])
    assert (again.stored, again.duplicates, again.conflicts) == (0, 7, 0)
    other = pair(TODAY, label="negative")
    assert store.upsert(other).conflicts == 2


def test_a_partition_that_could_not_be_created_is_created_later(
    postgresql: LedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "LOCK_S", 0.05)
    monkeypatch.setattr(partitions, "RETRY_S", 0.0)
    with postgresql.connect() as reading:
        reading.exec_driver_sql(f"SELECT 1 FROM {OTHER}")  # a report that takes long
        assert postgresql.upsert(pair(TODAY)).stored == 2
        assert count(postgresql, OTHER) == 2
    assert postgresql.upsert(pair(TODAY)).duplicates == 2
    assert count(postgresql, OTHER) == 0
    assert count(postgresql, partition_of(TODAY)) == 2
    assert verify(postgresql).consistent


def test_delivery_during_the_creation_of_its_partition_is_stored(postgresql: LedgerStore) -> None:
    """PostgreSQL had chosen ``entries_other`` for it, which does not take the day any more."""
    day = TODAY - timedelta(7)
    postgresql.partitions.prepare([])
    postgresql.partitions._created.add(day)  # as after another process has dropped it
    waits = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    with ThreadPoolExecutor(1) as other:
        with postgresql.connect() as creating:
            partitions._create(creating, day)
            delivery = other.submit(postgresql.upsert, pair(day))
            for _ in range(6_000):
                if delivery.done() or creating.execute(waits).scalar_one():
                    break
                time.sleep(0.01)
            assert not delivery.done()
        assert delivery.result(60).stored == 2
    assert count(postgresql, partition_of(day)) == 2


def test_wrong_clocks_create_a_bounded_number_of_partitions(postgresql: LedgerStore) -> None:
    for offset in range(-5000, 5000, 90):
        postgresql.upsert(pair(TODAY + timedelta(offset)))
    oldest, newest = timedelta(-partitions.PAST_DAYS), timedelta(partitions.FUTURE_DAYS)
    assert all(TODAY + oldest <= day <= TODAY + newest for day in days(postgresql))
    assert len(days(postgresql)) < 8
    assert verify(postgresql).requests == 112


def test_migration_of_an_existing_database_keeps_its_rows(postgresql: LedgerStore) -> None:
    delivered = [caller(), tier(), *pair(TODAY), *pair(TODAY - timedelta(600))]
    postgresql.upsert(delivered)
    config = Config()
    config.set_main_option("script_location", "shared.ledger.server:migrations")
    before = list(postgresql.entries())
    for step, revision in ((command.downgrade, "0006"), (command.upgrade, "head")):
        with postgresql._engine.connect() as connection:
            config.attributes["connection"] = connection
            step(config, revision)
            connection.commit()
        assert list(postgresql.entries()) == before
    assert count(postgresql, "entries_undated") == 2
    assert count(postgresql, OTHER) == 4, "they move when their day gets a partition"
    postgresql.partitions.forget()
    assert postgresql.upsert(delivered).duplicates == 6
    assert count(postgresql, partition_of(TODAY)) == 2
    assert verify(postgresql).consistent


def test_verify_of_a_day_reports_that_day_only(store: LedgerStore) -> None:
    yesterday = TODAY - timedelta(1)
    store.upsert([*pair(yesterday), *pair(yesterday, 1), *pair(TODAY), caller(), tier()])
    store.upsert([tier(id_of(TODAY, 2), request_id=id_of(TODAY, 2))])
    store.upsert(pair(TODAY, label="negative"))
    past = verify(store, yesterday)
    assert past.consistent
    assert (past.requests, past.caller_rows, past.tier_rows) == (2, 2, 2)
    report = verify(store, TODAY)
    assert sorted(finding.kind for finding in report.findings) == [
        "conflict", "conflict", "no_caller",
    ]  # fmt: skip
    assert (report.requests, report.caller_rows, report.tier_rows) == (2, 1, 2)
    assert verify(store).total_findings == 3
    assert verify(store, TODAY - timedelta(9)).requests == 0


def test_import_of_old_entries_keeps_the_partitions_of_later_days(
    postgresql: LedgerStore, tmp_path: Path
) -> None:
    """They arrived first, and their place, ``entries_other``, stays locked by the import."""
    ages = (partitions.PAST_DAYS + 9, 30, 20, 10)
    source = LedgerStore(f"sqlite:///{tmp_path / 'source.sqlite'}")
    for age in ages:
        put(source, age, *pair(TODAY - timedelta(age)))
    export_entries(source, tmp_path / "all.csv")
    source.close()
    assert import_entries(postgresql, tmp_path / "all.csv").stored == 2 * len(ages)
    assert count(postgresql, OTHER) == 2
    assert {TODAY - timedelta(age) for age in ages[1:]} <= set(days(postgresql))


@pytest.mark.parametrize("day", [UNDATED, date.max])
def test_day_that_no_identifier_can_have_is_refused(store: LedgerStore, day: date) -> None:
    """Otherwise one store would report undated entries, and the other one nothing."""
    store.upsert([*pair(date(2010, 5, 5)), caller()])
    with pytest.raises(InvalidInput, match="2020-01-01 to 2099-12-31"):
        verify(store, day)
    assert verify(store, date(2099, 12, 31)).requests == 0


def test_request_with_attempts_on_two_days_is_numbered_over_both(store: LedgerStore) -> None:
    yesterday, name = TODAY - timedelta(1), id_of(TODAY - timedelta(1))
    store.upsert(pair(yesterday, final=False))
    store.upsert(pair(TODAY, request_id=name, ordinal=2))
    assert verify(store, yesterday).consistent
    assert verify(store, TODAY).consistent
    store.upsert(pair(TODAY, 5, request_id=name, ordinal=4))
    assert verify(store, TODAY).total_findings == 2


def put(store: LedgerStore, days_ago: float, *delivered: LedgerEntry) -> None:
    store.partitions.prepare(delivered)
    with store.connect() as connection:
        insert_entries(connection, delivered, time.time() - days_ago * DAY_S)


def test_prune_drops_a_day_and_deletes_from_another(postgresql: LedgerStore) -> None:
    store = postgresql
    whole, part, split, young = (TODAY - timedelta(age) for age in (101, 100, 99, 3))
    for number in range(3):
        put(store, 98, *pair(whole, number))
    put(store, 98, *pair(part, 1), pair(part, 2)[0])
    put(store, 98, *pair(split, final=False))
    put(store, 98, *pair(young, 9, request_id=id_of(split), ordinal=2))
    put(store, 2, *pair(young))
    dry_run = prune(store, 90 * DAY_S, dry_run=True)
    assert len(list(store.entries())) == 15
    done = prune(store, 90 * DAY_S)
    assert dry_run.model_copy(update={"received_before": 0.0}) == done.model_copy(
        update={"received_before": 0.0}
    )
    assert (done.requests, done.entries, done.kept) == (5, 12, 1)
    assert whole not in days(store)
    assert {part, split, young} <= set(days(store))
    assert {entry.request_id for entry in store.entries()} == {id_of(part, 2), id_of(young)}
    assert store.upsert(pair(whole)).stored == 2, "entries of a machine that was off"
    assert whole in days(store)


def test_prune_reads_no_entry_of_a_young_day(
    postgresql: LedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs every hour, and a ledger may have hundreds of millions of young entries."""
    store, statements = postgresql, list[str]()
    young, other = TODAY - timedelta(2), TODAY - timedelta(partitions.PAST_DAYS + 9)
    put(store, 2, *(entry for number in range(200) for entry in pair(young, number)))
    put(store, 98, *pair(other), caller(), tier())
    selected = prune_module._names

    def remembered(after: str, among: Sequence[date] | None) -> sa.Select[Any]:
        query = selected(after, among)
        options = {"literal_binds": True}
        statements.append(str(query.compile(store._engine, compile_kwargs=options)))
        return query

    monkeypatch.setattr(prune_module, "_names", remembered)
    assert prune(store, 90 * DAY_S).requests == 2
    assert len(statements) == 2
    with store.connect() as connection:
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {statements[0]}").scalars())
    assert "entries_undated" in plan
    assert OTHER in plan
    assert partition_of(young) not in plan


def test_prune_drops_past_days_without_entries(postgresql: LedgerStore) -> None:
    """The day after a delivery gets a partition, also if nothing arrives on it."""
    store = postgresql
    old, recent = TODAY - timedelta(100), TODAY - timedelta(50)
    put(store, 2, *pair(old), *pair(recent), *pair(TODAY))
    with store.connect() as connection:
        connection.exec_driver_sql("DELETE FROM entries")
    dry_run = prune(store, 90 * DAY_S, dry_run=True)
    assert old in days(store)
    done = prune(store, 90 * DAY_S)
    assert (dry_run.requests, done.requests, done.entries) == (0, 0, 0)
    assert days(store) == [recent, TODAY, TODAY + timedelta(1)]
    assert store.upsert(pair(old)).stored == 2
    assert old in days(store)


def test_prune_leaves_a_day_that_a_report_reads(
    postgresql: LedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "LOCK_S", 0.05)
    old = TODAY - timedelta(100)
    put(postgresql, 98, *pair(old))
    with postgresql.connect() as reading:
        reading.exec_driver_sql("SELECT count(*) FROM entries")
        assert prune(postgresql, 90 * DAY_S).requests == 0
    assert prune(postgresql, 90 * DAY_S).requests == 1
    assert old not in days(postgresql)
