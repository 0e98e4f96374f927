"""Both stores: an attempt ends once for each side; other ends are kept and reported."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from shared.domain import Side, State
from shared.errors import InvalidInput
from shared.ledger.cli import ledger
from shared.ledger.entry import PROCESS_DIED, LedgerEntry
from shared.ledger.server.prune import prune
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.tables import conflicts, entries
from shared.ledger.server.transfer import export_entries, import_entries
from shared.ledger.server.verify import verify
from tests.support.entries import OPEN, caller, tier
from tests.support.hostile_values import check_store


def kinds(store: LedgerStore) -> set[str]:
    """Return the kinds of what `verify` finds."""
    return {finding.kind for finding in verify(store).findings}


def kept_conflicts(store: LedgerStore) -> list[LedgerEntry]:
    """Return the ends that were not stored because another end is."""
    with store.connect() as connection:
        rows = connection.scalars(sa.select(conflicts.c.entry))
        return [LedgerEntry.model_validate_json(row) for row in rows]


def test_store_keeps_every_accepted_value_of_every_field(store: LedgerStore) -> None:
    for field in sorted(LedgerEntry.model_fields):
        with store.connect(writing=True) as connection:
            connection.execute(sa.text("DELETE FROM entries"))
        check_store(store, field)


@pytest.mark.parametrize("at_once", [1, 100, 300])
def test_many_attempts_under_one_identifier_are_reported(store: LedgerStore, at_once: int) -> None:
    ends = [caller(request_id="r1", compute_ms=float(number)) for number in range(300)]
    results = [
        store.upsert(ends[start : start + at_once]) for start in range(0, len(ends), at_once)
    ]
    store.upsert([tier(compute_ms=0.0)])
    assert sum(result.stored for result in results) == 1
    assert sum(result.conflicts for result in results) == 299
    assert store.request_entries("r1")[0] == ends[0], "the first end stays"
    assert sorted(kept_conflicts(store), key=lambda entry: entry.compute_ms or 0) == ends[1:]
    found = verify(store)
    assert found.total_findings == 299
    assert {(finding.kind, finding.attempt_id, finding.side) for finding in found.findings} == {
        ("conflict", "a1", "caller")
    }


def test_a_repeated_delivery_is_no_conflict(store: LedgerStore) -> None:
    batch = [OPEN, caller(), tier(state=State.OPEN), tier()]
    for _ in range(3):
        result = store.upsert(batch)
        assert result.conflicts == 0
        store.upsert(list(reversed(batch)))
    assert kept_conflicts(store) == []
    assert verify(store).consistent


def test_a_conflict_that_is_delivered_again_is_reported_once(store: LedgerStore) -> None:
    store.upsert([caller(), tier()])
    for _ in range(3):
        assert store.upsert([caller(label="negative")]).conflicts == 1
    assert kept_conflicts(store) == [caller(label="negative")]
    assert verify(store).total_findings == 1


@pytest.mark.parametrize("first", [0, 1])
def test_an_end_that_another_process_assumed_is_no_conflict(store: LedgerStore, first: int) -> None:
    assumed = caller(state=State.ABANDONED, error_code=PROCESS_DIED, label=None, exit_layer=None)
    delivered = [caller(), assumed]
    store.upsert([delivered[first]])
    assert store.upsert([delivered[1 - first]]).conflicts == 0
    assert kept_conflicts(store) == []


def test_retention_keeps_a_request_with_a_conflict(store: LedgerStore) -> None:
    store.upsert([caller(), tier(), caller(label="negative")])
    assert prune(store, older_than_s=-60).kept == 1
    assert kinds(store) == {"conflict"}


def test_prune_names_every_reason_to_keep_a_request(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    store = LedgerStore(url)
    store.upsert([caller(), tier(), caller(label="negative")])
    with store.connect(writing=True) as connection:
        connection.execute(sa.update(entries).values(received_at=0.0))
    store.close()
    done = CliRunner().invoke(ledger, ["prune", "--older-than", "1d", "--database-url", url])
    assert done.output.endswith("removed; kept because open, unpaired or ended twice: 1\n")


@pytest.mark.parametrize("missing", ["cost_lambda", "cost_usd", "energy_mj"])
def test_an_answer_without_a_cost_is_reported(store: LedgerStore, missing: str) -> None:
    store.upsert([caller(**{missing: None}), tier()])
    assert kinds(store) == {"no_cost"}


def exported(tmp_path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write an export of one attempt, with ``rows`` as changes of its row, in this order."""
    source = LedgerStore(f"sqlite:///{tmp_path / 'source.sqlite'}")
    source.upsert([caller()])
    file = tmp_path / "export.csv"
    export_entries(source, file)
    source.close()
    with file.open(newline="") as lines:
        names, row, _ = list(csv.reader(lines))
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(names)
        for changes in rows:
            changed = dict(zip(names, row, strict=True)) | {"received_at": "5.0"} | changes
            writer.writerow([changed[name] for name in names])
        writer.writerow(["\\end", len(rows)] + ["\\N"] * (len(names) - 2))
    return file


BEGUN = {"state": "open", "delivery": "\\N", "final": "false", "cost_lambda": "2.0"}
ENDED = {"cost_lambda": "2.0"}
OTHER = {"cost_lambda": "999.0"}
LATER = {"received_at": "6.0"}


@pytest.mark.parametrize(
    "rows",
    [
        [ENDED, BEGUN],
        [BEGUN, ENDED],
        [ENDED, BEGUN | LATER],
        [BEGUN, ENDED | LATER],
        [ENDED, ENDED],
        [ENDED, ENDED | LATER, BEGUN],
    ],
)
def test_import_of_one_key_twice_keeps_its_end(
    store: LedgerStore, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    result = import_entries(store, exported(tmp_path, rows))
    assert result.stored + result.duplicates == len(rows)
    (entry,) = store.entries()
    assert (entry.state, entry.cost_lambda) == (State.ANSWERED, 2.0)


@pytest.mark.parametrize("stored_before", [False, True])
@pytest.mark.parametrize("second", [OTHER, OTHER | LATER])
def test_import_refuses_two_ends_of_one_attempt_and_names_the_row(
    store: LedgerStore, tmp_path: Path, second: dict[str, Any], stored_before: bool
) -> None:
    rows = [ENDED | {"attempt_id": "a9"}, BEGUN, ENDED, second]
    if stored_before:
        store.upsert([caller(cost_lambda=2.0)])
        rows.remove(ENDED)
    before = list(store.entries())
    with pytest.raises(InvalidInput, match=rf"row {len(rows)}: the attempt a1 .* another end"):
        import_entries(store, exported(tmp_path, rows))
    assert list(store.entries()) == before, "nothing was imported"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("received_at", value) for value in ("inf", "nan", "-1", "1e300", "", "x", "\\N")),
        *(("started_at", value) for value in ("inf", "nan", "-1", "1e300", "\\N")),
        *(("cost_lambda", value) for value in ("-2", "nan", "inf", "1e21")),
        ("round_trip_ms", "inf"),
        ("energy_mj", "-0.1"),
        ("confidence", "nan"),
        ("label", "a\0b"),
        ("label", "x" * 257),
        ("price_book", "v\0"),
        ("sent_bytes", "-1"),
        ("sent_bytes", "9007199254740993"),
        ("side", "both"),
    ],
)
def test_import_refuses_a_wrong_value_and_names_its_row(
    store: LedgerStore, tmp_path: Path, field: str, value: str
) -> None:
    with pytest.raises(InvalidInput, match=rf"row 2: {field}: ") as refused:
        import_entries(store, exported(tmp_path, [ENDED, {"attempt_id": "a2", field: value}]))
    assert "\n" not in refused.value.message
    assert list(store.entries()) == []


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_import_of_a_pipe_a_folder_or_a_loop_is_refused_without_waiting(
    tmp_path: Path, kind: str
) -> None:
    store = LedgerStore("sqlite://")
    pipe, folder, loop = (tmp_path / f"{name}.{kind}" for name in ("pipe", "folder", "loop"))
    os.mkfifo(pipe)
    folder.mkdir()
    loop.symlink_to(loop)
    for file in (pipe, folder, loop):
        with pytest.raises(InvalidInput, match="is not a complete ledger export") as refused:
            import_entries(store, file)
        assert "\n" not in refused.value.message
    store.close()


def test_sides_of_one_attempt_are_no_conflict(store: LedgerStore) -> None:
    assert store.upsert([caller(), tier()]).conflicts == 0
    assert {entry.side for entry in store.entries()} == {Side.CALLER, Side.TIER}
