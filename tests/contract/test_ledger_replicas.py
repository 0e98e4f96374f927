"""Replicas in `verify` and `summary`: who did the work, and who owes entries."""

from __future__ import annotations

import click
from click.testing import CliRunner

from shared.domain import Delivery, Side, State, Tier
from shared.ledger.entry import LedgerEntry
from shared.ledger.reports import ReplicaGap, Verification
from shared.ledger.server.missing import MAX_REPLICAS
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.summary import summarise
from shared.ledger.server.tables import entries
from shared.ledger.server.verify import verify
from shared.ledger.summary_text import print_summary
from shared.ledger.verification_text import verification_lines
from tests.support.entries import caller, tier


def pair(number: int, replica: str | None, **facts: object) -> list[LedgerEntry]:
    """Return both sides of an attempt of its own request."""
    own = {"request_id": f"r{number}", "replica": replica} | facts
    return [side(f"a{number}", **own) for side in (caller, tier)]


def test_replica_that_has_not_delivered_is_named(store: LedgerStore) -> None:
    store.upsert(pair(1, "edge-1"))
    assert verify(store).gaps == []
    owed = [pair(number, "edge-2")[0] for number in (2, 3)]
    unknown = pair(4, None)[0]
    open_row = pair(5, "edge-2", state=State.OPEN, delivery=None, final=False)[1]
    not_sure = caller("a6", request_id="r6", state=State.FAILED, delivery=Delivery.UNKNOWN,
                      replica="edge-3", label=None, exit_layer=None)  # fmt: skip
    broken = caller("a5", request_id="r5", state=State.FAILED, delivery=Delivery.UNKNOWN,
                    replica="edge-2", label=None, exit_layer=None)  # fmt: skip
    store.upsert([*owed, unknown, open_row, not_sure, broken])
    report = verify(store)
    last = max(row for row in received(store, "edge-2"))
    assert report.gaps == [
        ReplicaGap(tier="edge", replica=None, missing=1, open=0),
        ReplicaGap(tier="edge", replica="edge-2", missing=2, open=1, received_at=last),
    ]
    named = {(one.kind, one.attempt_id): one.replica for one in report.findings}
    assert named == {
        ("open", "a5"): "edge-2", ("no_tier", "a2"): "edge-2", ("no_tier", "a3"): "edge-2",
        ("no_tier", "a4"): None,
    }  # fmt: skip
    text = "\n".join(verification_lines(report, last + 12))
    assert (
        "the edge replica edge-2 has not delivered 2 attempts that it has answered and the ends of "
        "1 attempts (its last delivery came 12 s ago); they are in the outbox of its state folder: "
        "if it has stopped, start it again with the same DIMEE_REPLICA and DIMEE_STATE_DIR (volume)"
    ) in text
    assert "a replica of the edge whose name is not known has not delivered 1 attempts" in text
    # its successor delivers
    store.upsert([tier(f"a{n}", request_id=f"r{n}", replica="edge-2") for n in (2, 3, 4, 5)])
    assert verify(store).consistent


def received(store: LedgerStore, replica: str) -> list[float]:
    with store.connect() as connection:
        query = entries.select().where(
            (entries.c.replica == replica) & (entries.c.side == Side.TIER.value)
        )
        return [row.received_at for row in connection.execute(query)]


def test_work_of_another_replica_than_the_caller_was_answered_by_is_a_mismatch(
    store: LedgerStore,
) -> None:
    store.upsert([caller(replica="edge-1"), tier(replica="edge-2")])
    assert [one.kind for one in verify(store).findings] == ["mismatch"]


def test_replica_that_a_side_does_not_know_is_no_mismatch(store: LedgerStore) -> None:
    for number, (first, second) in enumerate(
        [(None, "edge-1"), ("edge-1", None), (None, None), ("edge-1", "edge-1")]
    ):
        request = f"r{number}"
        store.upsert(
            [
                caller(f"a{number}", request_id=request, replica=first),
                tier(f"a{number}", request_id=request, replica=second),
            ]
        )
    # without a response the caller's replica is the one that it had sent the attempt to
    lost = caller("b1", request_id="r9", state=State.FAILED, delivery=Delivery.UNKNOWN, label=None,
                  exit_layer=None, replica="edge-1")  # fmt: skip
    store.upsert([lost, tier("b1", request_id="r9", replica="edge-2")])
    assert verify(store).consistent


def test_gaps_have_a_limit(store: LedgerStore) -> None:
    store.upsert([pair(number, f"edge-{number}")[0] for number in range(MAX_REPLICAS + 5)])
    assert len(verify(store).gaps) == MAX_REPLICAS


def test_summary_counts_by_replica(store: LedgerStore) -> None:
    for number in range(6):
        store.upsert(pair(number, f"edge-{1 + number % 2}"))
    store.upsert(pair(7, "cloud-1", tier=Tier.CLOUD))
    failed = caller("a8", request_id="r8", replica="edge-2", state=State.FAILED, label=None,
                    exit_layer=None, delivery=Delivery.UNKNOWN)  # fmt: skip
    store.upsert([failed])
    report = summarise(store)
    assert [(one.tier, one.replica, one.attempts, one.answered) for one in report.replicas] == [
        ("cloud", "cloud-1", 1, 1),
        ("edge", "edge-1", 3, 3),
        ("edge", "edge-2", 4, 3),
    ]


def test_summary_prints_the_replicas_of_a_tier_with_several(store: LedgerStore) -> None:
    for number, replica in enumerate(["edge-1", "edge-1", "edge-1", "edge-2"]):
        store.upsert(pair(number, replica))
    store.upsert(pair(9, "cloud-1", tier=Tier.CLOUD))
    report = summarise(store)
    printed = CliRunner().invoke(click.command()(lambda: print_summary(report))).output
    assert "  edge          3   75.0%   replica edge-1: 3 answered of 3 attempts" in printed
    assert "  edge          1   25.0%   replica edge-2: 1 answered of 1 attempts" in printed
    assert "cloud-1" not in printed


def test_report_of_an_older_ledger_has_no_gaps() -> None:
    older = {"requests": 0, "caller_rows": 0, "tier_rows": 0, "total_findings": 0, "findings": []}
    assert Verification.model_validate(older).gaps == []
