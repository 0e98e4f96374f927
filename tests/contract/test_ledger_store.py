"""Contract of both stores: idempotent and commutative deliveries, migration, verification."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.domain import Delivery, Reason, Side, State, Tier
from shared.errors import InvalidInput, LedgerUnavailable
from shared.ledger.entry import LedgerEntry
from shared.ledger.server.app import MAX_ENTRIES
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.summary import summarise
from shared.ledger.server.tables import entries, metadata
from shared.ledger.server.verify import verify
from tests.support.entries import caller, tier
from tests.support.paths import free_ports


def test_stored_entry_keeps_every_field(store: LedgerStore) -> None:
    store.upsert([caller(), tier()])
    assert store.request_entries("r1") == [caller(), tier()]
    assert store.request_entries("r2") == []
    assert list(store.entries()) == [caller(), tier()]


def test_label_keeps_its_name_of_up_to_256_characters(store: LedgerStore) -> None:
    for number, label in enumerate(("🎬 cine y más", "スポーツ" * 64)):
        entry = caller(f"a{number}", label=label)
        store.upsert([entry])
        assert entry in store.request_entries("r1")
    with pytest.raises(ValidationError, match="at most 256 characters"):
        caller(label="x" * 257)


def test_a_repeated_delivery_changes_nothing(store: LedgerStore) -> None:
    assert store.upsert([caller(), tier()]).stored == 2
    again = store.upsert([caller(), tier()])
    assert (again.stored, again.duplicates) == (0, 2)
    assert len(list(store.entries())) == 2


def test_only_open_entries_are_replaced(store: LedgerStore) -> None:
    begun = caller(state=State.OPEN, delivery=None, final=False)
    assert store.upsert([begun]).stored == 1
    assert store.upsert([caller()]).stored == 1
    assert store.upsert([begun]).stored == 0
    assert store.upsert([caller(state=State.FAILED)]).stored == 0
    assert store.request_entries("r1") == [caller()]


def test_duplicates_within_one_batch_are_merged(store: LedgerStore) -> None:
    begun = caller(state=State.OPEN, delivery=None, final=False)
    stored = store.upsert([begun, caller(), caller(), begun])
    assert (stored.stored, stored.duplicates) == (1, 3)
    assert store.request_entries("r1") == [caller()]
    assert store.upsert([]).stored == 0


LIFE = [
    caller(state=State.OPEN, delivery=None, final=False),
    caller(),
    tier(state=State.OPEN),
    tier(),
    caller("a2", request_id="r2", state=State.OPEN, delivery=None, final=False),
]


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.permutations(LIFE + LIFE), st.lists(st.integers(0, 10), max_size=4).map(sorted))
def test_order_and_repetition_of_deliveries_do_not_matter(
    store: LedgerStore, deliveries: list[LedgerEntry], cuts: list[int]
) -> None:
    with store.connect() as connection:
        connection.execute(sa.delete(entries))
    for start, end in zip([0, *cuts], [*cuts, len(deliveries)], strict=True):
        store.upsert(deliveries[start:end])
    assert list(store.entries()) == [caller(), tier(), LIFE[4]]


def test_migrated_schema_equals_the_tables(store: LedgerStore) -> None:
    def is_common(_: object, name: str | None, kind: str, *__: object) -> bool:
        """Leave out what PostgreSQL has besides: partitions, and the column that chooses one."""
        of_days = (("table", "entries_"), ("column", "day"))
        return not any(kind == of and str(name).startswith(begin) for of, begin in of_days)

    with store.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": is_common})
        assert compare_metadata(context, metadata) == []


def test_concurrent_starts_migrate_once(url: str) -> None:
    opened: list[LedgerStore] = []
    threads = [threading.Thread(target=lambda: opened.append(LedgerStore(url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 4
    opened[0].upsert([caller()])
    assert opened[1].request_entries("r1") == [caller()]
    for store in opened:
        store.close()


def kinds(store: LedgerStore, *delivered: LedgerEntry) -> set[str]:
    store.upsert(delivered)
    report = verify(store)
    assert report.consistent == (not report.findings)
    return {finding.kind for finding in report.findings}


def test_matching_sides_are_consistent(store: LedgerStore) -> None:
    assert kinds(store, caller(), tier()) == set()
    report = verify(store)
    assert (report.requests, report.caller_rows, report.tier_rows) == (1, 1, 1)


UNKNOWN = caller(state=State.TIMED_OUT, delivery=Delivery.UNKNOWN)
NOT_SENT = caller(state=State.FAILED, delivery=Delivery.NOT_SENT)
REFUSED = caller(state=State.REFUSED)


@pytest.mark.parametrize(
    "delivered",
    [
        (UNKNOWN,),
        (UNKNOWN, tier()),
        (UNKNOWN, tier(state=State.ABANDONED)),
        (NOT_SENT,),
        (REFUSED, tier(state=State.REFUSED)),
        (caller(), tier(compute_ms=2.000_001)),
    ],
)
def test_permitted_differences_are_consistent(
    store: LedgerStore, delivered: tuple[LedgerEntry, ...]
) -> None:
    assert kinds(store, *delivered) == set()


@pytest.mark.parametrize(
    ("kind", "delivered"),
    [
        ("open", (caller(state=State.OPEN, delivery=None, final=False),)),
        ("no_caller", (tier(),)),
        ("no_tier", (caller(),)),
        ("not_sent", (NOT_SENT, tier())),
        ("mismatch", (caller(), tier(tier=Tier.CLOUD))),
        ("answer_mismatch", (caller(), tier(label="negative"))),
        ("answer_mismatch", (caller(), tier(exit_layer=2))),
        ("answer_mismatch", (caller(), tier(compute_ms=2.1))),
        ("answer_mismatch", (caller(), tier(queue_ms=None))),
        ("answer_without_work", (caller(), tier(state=State.ABANDONED))),
        ("refusal_mismatch", (REFUSED, tier())),
        ("ordinals", (caller(ordinal=2), tier(ordinal=2))),
        ("final", (caller(final=False), tier())),
        (
            "final",
            (caller(), tier(), caller("a2", ordinal=2), tier("a2", ordinal=2)),
        ),
    ],
)
def test_inconsistencies_are_reported(
    store: LedgerStore, kind: str, delivered: tuple[LedgerEntry, ...]
) -> None:
    assert kinds(store, *delivered) == {kind}
    assert all(finding.attempt_id.startswith("a") for finding in verify(store).findings)


def test_summary_matches_hand_computed_values(store: LedgerStore) -> None:
    store.upsert([caller(), tier()])
    failed = caller("a2", request_id="r2", state=State.FAILED, delivery=Delivery.NOT_SENT,
                    final=False, cost_lambda=0.0, all_cloud_lambda=None, sent_bytes=0,
                    received_bytes=0, exit_layer=None, label=None)  # fmt: skip
    over = caller("a3", request_id="r2", ordinal=2, tier=Tier.CLOUD, reason=Reason.FAIL_OVER,
                  exit_layer=6, cost_lambda=12.0, compute_ms=6.0)  # fmt: skip
    store.upsert([failed, over])
    report = summarise(store)
    assert (report.requests, report.answered, report.failed, report.failed_over) == (2, 2, 0, 1)
    assert report.answered_by_tier == {"cloud": 1, "edge": 1}
    assert report.exits_by_tier == {"cloud": {"6": 1}, "edge": {"3": 1}}
    assert report.attempts_by_state == {"answered": 2, "failed": 1}
    assert report.attempts_by_reason == {"fail_over": 1, "route": 2}
    assert (report.cost_lambda, report.all_cloud_lambda) == (15.5, 24.0)
    assert (report.sent_bytes, report.received_bytes) == (600, 800)
    compute = {row.tier: row.p50 for row in report.durations if row.what == "compute_ms"}
    assert compute == {"edge": 2.0, "cloud": 6.0}


def test_summary_counts_audits_separately(store: LedgerStore) -> None:
    audit: dict[str, Any] = {"ordinal": 2, "tier": Tier.CLOUD, "final": False, "exit_layer": 6,
                             "resumed_after": None}  # fmt: skip
    recorded = audit | {"reason": Reason.AUDIT, "cost_lambda": 12.0, "all_cloud_lambda": None}
    broken = recorded | {"ordinal": 3, "state": State.ABANDONED, "delivery": Delivery.UNKNOWN,
                       "cost_lambda": 1.0, "exit_layer": None, "label": None}  # fmt: skip
    store.upsert([
        caller(), tier(),
        caller("a2", **recorded, label="negative"), tier("a2", **audit, label="negative"),
        caller("a3", **broken),
        caller("b1", request_id="r2", degraded=True), tier("b1", request_id="r2"),
        caller("b2", request_id="r2", **recorded), tier("b2", request_id="r2", **audit),
    ])  # fmt: skip
    assert verify(store).consistent, verify(store)
    report = summarise(store)
    audits = report.audits
    assert (audits.attempts, audits.compared, audits.differ) == (3, 2, 1)
    assert (audits.cost_lambda, audits.sent_bytes, audits.received_bytes) == (25.0, 900, 1200)
    assert (audits.cost_usd, audits.energy_mj) == pytest.approx((0.003, 1.05))
    assert (report.requests, report.answered, report.degraded) == (2, 2, 1)
    assert report.answered_by_tier == {"edge": 2}
    assert report.attempts_by_reason == {"route": 2}
    assert report.attempts_by_state == {"answered": 2}
    assert {row.tier for row in report.durations} == {"edge"}
    assert (report.cost_lambda, report.sent_bytes) == (7.0, 600)


def test_empty_ledger_is_consistent(store: LedgerStore) -> None:
    assert verify(store).consistent
    assert summarise(store).requests == 0
    store.ping()


@pytest.mark.parametrize("wrong", ["", "invalid", "mysql://a@b/c", "postgres:/x"])
def test_unsupported_database_url_is_rejected(wrong: str) -> None:
    with pytest.raises(InvalidInput, match="sqlite:///FILE or postgresql://"):
        LedgerStore(wrong)


def test_missing_database_is_reported(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable, match="database-url"):
        LedgerStore(f"postgresql://user@127.0.0.1:{free_ports(1)[0]}/none")
    (tmp_path / "file").write_text("no database at all, and long enough to be read as a header")
    with pytest.raises(LedgerUnavailable, match="database-url"):
        LedgerStore(f"sqlite:///{tmp_path / 'file'}")


def test_nul_characters_are_rejected_for_both_stores(store: LedgerStore) -> None:
    """PostgreSQL cannot store NUL, so the outbox would repeat the delivery endlessly."""
    for name in ("writer", "label", "policy", "error_code", "price_book", "text_hash"):
        with pytest.raises(ValidationError):
            caller(**{name: "a\0b"})
    assert store.request_entries("r\0") == []


def test_largest_batch_and_largest_numbers_are_stored(store: LedgerStore) -> None:
    most = caller("m", text_chars=2**53, tokens=2**53, sent_bytes=2**53,
                  started_at=253_402_300_799.0,
                  cost_lambda=1e20, cost_usd=5e-324, round_trip_ms=1e12,
                  label="é\U0001f600\n' --", confidence=0.1 + 0.2)  # fmt: skip
    rows = [*(caller(f"a{i:03}", request_id="r2") for i in range(MAX_ENTRIES - 1)), most]
    assert store.upsert(rows).stored == MAX_ENTRIES
    assert store.upsert(rows).duplicates == MAX_ENTRIES
    assert store.request_entries("r1") == [most]


def test_missing_fields_stay_none(store: LedgerStore) -> None:
    least = LedgerEntry(
        attempt_id="a", side=Side.TIER, request_id="r1", tier=Tier.CLOUD, state=State.OPEN,
        started_at=0,
    )  # fmt: skip
    store.upsert([least])
    assert store.request_entries("r1") == [least]


def test_first_end_wins_over_late_open_entries_and_second_ends(store: LedgerStore) -> None:
    begun = caller(state=State.OPEN, delivery=None, final=False)
    assert store.upsert([caller()]).stored == 1
    assert store.upsert([begun, caller(state=State.FAILED), begun]).stored == 0
    assert store.request_entries("r1") == [caller()]


def test_findings_name_only_the_inconsistent_rows(store: LedgerStore) -> None:
    """The ledger holds two inconsistent attempts among pairs that match."""
    store.upsert([side(f"a{i}", request_id=f"r{i}") for i in range(5) for side in (caller, tier)])
    store.upsert([caller("b1", request_id="x1"), tier("b2", request_id="x2")])
    findings = [
        (finding.kind, finding.attempt_id, finding.side) for finding in verify(store).findings
    ]
    assert findings == [("no_caller", "b2", "tier"), ("no_tier", "b1", "caller")]


def test_gaps_and_duplicates_of_ordinals_are_reported(store: LedgerStore) -> None:
    first = caller("a1", final=False), tier("a1")
    assert kinds(store, *first, caller("a2", ordinal=3), tier("a2", ordinal=3)) == {"ordinals"}
    store.upsert([caller("b1", request_id="r2", final=False), tier("b1", request_id="r2")])
    twice = caller("b2", request_id="r2"), tier("b2", request_id="r2")
    assert kinds(store, *twice) == {"ordinals"}
    assert verify(store).total_findings == 2


def test_summary_of_failures_money_and_percentiles(store: LedgerStore) -> None:
    trips = (10.0, 20.0, 30.0, 40.0, 50.0)
    store.upsert(
        [caller(f"a{i}", request_id=f"r{i}", round_trip_ms=ms) for i, ms in enumerate(trips)]
        + [tier(f"a{i}", request_id=f"r{i}") for i in range(5)]
    )
    store.upsert([caller("f", request_id="f", state=State.TIMED_OUT, delivery=Delivery.UNKNOWN,
                         price_book="q", policy="dimee-rl", cost_usd=0.5)])  # fmt: skip
    report = summarise(store)
    assert (report.requests, report.answered, report.failed) == (6, 5, 1)
    assert report.attempts_by_state == {"answered": 5, "timed_out": 1}
    assert report.requests_by_policy == {"dimee-fixed": 5, "dimee-rl": 1}
    assert report.price_books == ["p", "q"]
    assert report.cost_usd == pytest.approx(0.505)
    assert report.energy_mj == pytest.approx(6 * 0.35)
    (trip,) = [row for row in report.durations if row.what == "round_trip_ms"]
    assert (trip.tier, trip.count, trip.p50) == ("edge", 5, 30.0)
    assert (trip.p95, trip.p99) == (pytest.approx(48.0), pytest.approx(49.6))
