"""Summary and ``dimee ledger`` with entries that no dimee writes: they are printed, none raises."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest

from shared.domain import Reason
from shared.ledger.cli import _entry_line
from shared.ledger.entry import LedgerEntry
from shared.ledger.reports import Percentiles, Pruned, Summary
from shared.ledger.server.bulk_insert import insert_entries
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.summary import summarise
from shared.ledger.summary_text import print_summary
from tests.support.entries import caller

EVIL = "a\nb\x1b[2J\u202e\t"


def unchecked(number: int, **facts: Any) -> LedgerEntry:
    """Return an entry with facts that `LedgerEntry` refuses, as an older ledger may hold them."""
    valid = caller(f"a{number}", request_id=f"r{number}")
    return LedgerEntry.model_construct(**(valid.model_dump() | facts))


def summary_of(entries: list[LedgerEntry]) -> Summary:
    store = LedgerStore("sqlite://")
    if entries:
        with store.connect(writing=True) as connection:
            insert_entries(connection, entries, 1.0)
    return Summary.model_validate_json(summarise(store).model_dump_json())


AMOUNTS = ("cost_lambda", "all_cloud_lambda", "cost_usd", "energy_mj")
TIMES = ("decision_ms", "queue_ms", "compute_ms", "network_ms", "round_trip_ms")


@pytest.mark.parametrize("value", [0.0, -1.0, 1e300, sys.float_info.max, math.inf, 5e-324])
@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("reason", [Reason.ROUTE, Reason.AUDIT])
def test_absurd_entries_give_a_summary(
    value: float, count: int, reason: Reason, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = dict.fromkeys((*AMOUNTS, *TIMES), value) | {"reason": reason}
    report = summary_of([unchecked(number, **facts) for number in range(count)])
    assert report.requests == count
    print_summary(report)
    printed = capsys.readouterr().out
    assert max(map(len, printed.split("\n"))) <= 130
    for number in range(count):
        assert _entry_line(unchecked(number, **facts))


def test_bytes_beyond_64_bits_are_summed() -> None:
    entries = [unchecked(number, sent_bytes=2**62) for number in range(5)]
    assert summary_of(entries).sent_bytes == 5 * 2**62
    audits = [unchecked(number, sent_bytes=2**62, reason=Reason.AUDIT) for number in range(5)]
    assert summary_of(audits).audits.sent_bytes == 5 * 2**62


def test_summary_without_answers_or_with_a_year_beyond_any_calendar_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    empty = summary_of([])
    pruned = Pruned(received_before=1e300, requests=1, entries=2, cost_lambda=1e300)
    percentiles = Percentiles(tier="edge", what="queue_ms", count=1, p50=1e300, p95=0.0, p99=-1.0)
    for requests, answered, displaced in ((0, 0, 0), (1, 0, 1), (10**18, 10**18, 1)):
        print_summary(
            empty.model_copy(
                update={
                    "requests": requests,
                    "answered": answered,
                    "not_from_chosen_tier": displaced,
                    "pruned": pruned,
                    "durations": [percentiles],
                }
            )
        )
    assert "before second 1.000e+300 since 1970" in capsys.readouterr().out


@pytest.mark.parametrize("field", ["policy", "price_book", "error_code", "label"])
def test_names_from_data_stay_in_their_line(field: str, capsys: pytest.CaptureFixture[str]) -> None:
    entry = unchecked(1, **{field: EVIL})
    assert "\n" not in _entry_line(entry)
    assert "\x1b" not in _entry_line(entry)
    print_summary(summary_of([entry]))
    lines = capsys.readouterr().out.split("\n")
    print_summary(summary_of([unchecked(1)]))
    assert len(lines) == len(capsys.readouterr().out.split("\n"))
