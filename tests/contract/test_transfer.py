"""Export and import preserve every entry and reject other files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import sqlalchemy as sa

from shared.domain import Side, State
from shared.errors import InvalidInput
from shared.ledger.entry import LedgerEntry
from shared.ledger.server import transfer
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.tables import entries
from shared.ledger.server.verify import verify
from tests.support.entries import caller, tier

KINDS = ["parquet", "csv"]


def rows(store: LedgerStore) -> list[dict[str, Any]]:
    """Return every row with its time of arrival."""
    query = sa.select(entries).order_by(entries.c.attempt_id, entries.c.side)
    with store.connect() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def odd_entries() -> list[LedgerEntry]:
    """Return entries with words that a text format could change, large numbers, few fields."""
    words = ["", "\\N", "\\", "a,b", 'say "so"', "two\nlines", "\r", "λ", "true", " x ", "1.0"]
    odd = [caller(f"w{i}", request_id=f"w{i}", policy=word) for i, word in enumerate(words)]
    bare = LedgerEntry(
        attempt_id="bare", side=Side.CALLER, request_id="bare", tier="edge", state=State.OPEN,
        started_at=0.1 + 0.2,
    )  # fmt: skip
    return [*odd, bare, caller("big", sent_bytes=2**53, cost_usd=1e-300, round_trip_ms=1 / 3)]


@pytest.fixture
def other(tmp_path: Path, postgres: str) -> Iterator[LedgerStore]:
    """An empty PostgreSQL database."""
    import uuid

    import psycopg

    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    opened = LedgerStore(postgres.replace("/postgres?", f"/{name}?", 1))
    yield opened
    opened.close()


@pytest.mark.parametrize("kind", KINDS)
def test_export_and_import_preserve_every_entry(
    kind: str, tmp_path: Path, other: LedgerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entries go from SQLite to PostgreSQL and back to SQLite, in many batches."""
    monkeypatch.setattr(transfer, "ROWS_AT_ONCE", 7)
    first = LedgerStore(f"sqlite:///{tmp_path / 'a.sqlite'}")
    first.upsert(odd_entries())
    first.upsert([side(f"a{i}", request_id=f"r{i}") for i in range(20) for side in (caller, tier)])
    exported, exported_again = tmp_path / f"there.{kind}", tmp_path / f"back.{kind}"
    count = len(rows(first))
    assert transfer.export_entries(first, exported) == count
    assert transfer.import_entries(other, exported).stored == count
    assert transfer.import_entries(other, exported).stored == 0, "repeating changes nothing"
    assert transfer.export_entries(other, exported_again) == count
    last = LedgerStore(f"sqlite:///{tmp_path / 'b.sqlite'}")
    transfer.import_entries(last, exported_again)
    assert rows(last) == rows(other) == rows(first)
    assert exported.read_bytes() == exported_again.read_bytes()
    assert verify(last) == verify(first)
    first.close()
    last.close()


@pytest.mark.parametrize("kind", KINDS)
def test_import_keeps_ended_attempts(kind: str, store: LedgerStore, tmp_path: Path) -> None:
    file = tmp_path / f"x.{kind}"
    store.upsert([caller(state=State.OPEN, delivery=None, final=False)])
    transfer.export_entries(store, file)
    store.upsert([caller()])
    done = transfer.import_entries(store, file)
    assert (done.stored, done.duplicates) == (0, 1)
    assert store.request_entries("r1") == [caller()]


@pytest.mark.parametrize("kind", KINDS)
def test_empty_ledger_is_exported_and_imported(
    kind: str, store: LedgerStore, tmp_path: Path
) -> None:
    assert transfer.export_entries(store, tmp_path / f"x.{kind}") == 0
    assert transfer.import_entries(store, tmp_path / f"x.{kind}").stored == 0


def damaged(kind: str, damage: str, whole: bytes) -> bytes:
    if damage == "short":
        return b"".join(whole.splitlines(keepends=True)[:-2])
    if damage == "cut":
        return whole[: len(whole) * 2 // 3 - 3]
    if damage == "foreign":
        return b"name,value\nx,1\n" if kind == "csv" else b"PK\x03\x04 something else" * 9
    if damage == "empty":
        return b""
    if kind == "csv":  # a value that no entry may have, in the last row
        head, _, last = whole.rpartition(b"answered")
        return head + b"answerd" + last
    # more than the statistics in a page's header, which no checksum covers and no import reads
    middle, start = bytearray(whole), len(whole) // 4
    for place in range(start, start + 64):
        middle[place] ^= 0xFF
    return bytes(middle)


@pytest.mark.parametrize("how", ["cut", "short", "foreign", "empty", "one_value"])
@pytest.mark.parametrize("kind", KINDS)
def test_import_rejects_a_damaged_file_without_changes(
    kind: str, how: str, store: LedgerStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "ROWS_AT_ONCE", 10)
    full = LedgerStore(f"sqlite:///{tmp_path / 'full.sqlite'}")
    full.upsert([side(f"a{i}", request_id=f"r{i}") for i in range(50) for side in (caller, tier)])
    file = tmp_path / f"x.{kind}"
    transfer.export_entries(full, file)
    full.close()
    file.write_bytes(damaged(kind, how, file.read_bytes()))
    with pytest.raises(InvalidInput, match="is not a complete ledger export") as refused:
        transfer.import_entries(store, file)
    assert "\n" not in refused.value.message
    assert rows(store) == [], "rows before the damage were imported"


def test_unusable_file_names_are_rejected(store: LedgerStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"\.parquet or \.csv"):
        transfer.export_entries(store, tmp_path / "x.json")
    with pytest.raises(InvalidInput, match="not a complete ledger export"):
        transfer.import_entries(store, tmp_path / "missing.csv")
    with pytest.raises(InvalidInput, match="cannot be written"):
        transfer.export_entries(store, tmp_path / "no" / "folder.csv")
    (tmp_path / "x.csv").write_text("mine")
    with pytest.raises(InvalidInput, match="exists"):
        transfer.export_entries(store, tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "mine"


@pytest.mark.parametrize("name", ["ordinal", "started_at"])
def test_booleans_are_no_numbers(name: str, tmp_path: Path) -> None:
    file = tmp_path / "export.parquet"
    first = LedgerStore(f"sqlite:///{tmp_path / 'a.sqlite'}")
    first.upsert([caller()])
    transfer.export_entries(first, file)
    table = pyarrow.parquet.read_table(file)
    place = table.column_names.index(name)
    pyarrow.parquet.write_table(table.set_column(place, name, pyarrow.array([True])), file)
    with pytest.raises(InvalidInput, match=f"the column {name} holds booleans"):
        transfer.import_entries(first, file)
    first.close()


@pytest.mark.parametrize("kind", KINDS)
def test_export_of_an_earlier_version_is_imported(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a file has no columns for traces and replicas."""
    store = LedgerStore(f"sqlite:///{tmp_path / 'a.sqlite'}")
    later = ("trace_id", "span_id", "replica")
    store.upsert([side(**dict.fromkeys(later)) for side in (caller, tier)])
    names = [name for name in transfer._NAMES if name not in later]
    file = tmp_path / f"earlier.{kind}"
    with monkeypatch.context() as patched:
        patched.setattr(transfer, "_NAMES", names)
        schema = transfer._schema(pyarrow)
        earlier = pyarrow.schema([schema.field(name) for name in names])
        patched.setattr(transfer, "_schema", lambda _: earlier)
        transfer.export_entries(store, file)
    other = LedgerStore(f"sqlite:///{tmp_path / 'b.sqlite'}")
    assert transfer.import_entries(other, file).stored == 2
    assert list(other.entries()) == list(store.entries())
    store.close()
    other.close()
