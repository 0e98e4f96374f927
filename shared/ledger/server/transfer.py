"""Export of the whole ledger to a Parquet or CSV file, and import into any database.

The file is lossless; it includes the time at which each entry arrived. CSV marks an absent value as
``\\N`` and puts a backslash before a value that begins with one, as PostgreSQL's text format does.
Its last row is ``\\end`` and the number of entries, so that a truncated file is detected.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError

from shared.errors import InvalidInput, MissingExtra
from shared.extras import install_command
from shared.field_types import Timestamp
from shared.files import open_regular
from shared.ids import day_of
from shared.ledger.entry import LedgerEntry
from shared.ledger.reports import StoreResult
from shared.ledger.server.bulk_insert import first_ends, insert_entries
from shared.ledger.server.conflicts import other_ends
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.tables import entries
from shared.validation import first_error

ROWS_AT_ONCE = 10_000
_NAMES = [column.name for column in entries.c]
_LATER = {"trace_id", "span_id", "replica"}
"""Columns that the exports of earlier versions do not have."""
_ABSENT = "\\N"
_END = "\\end"  # marks the last line; no attempt identifier may contain a backslash

_TIMESTAMP: TypeAdapter[float] = TypeAdapter(Timestamp)

Row = dict[str, Any]
T = TypeVar("T")


def export_entries(store: LedgerStore, file: Path) -> int:
    """Write every entry to ``file`` (``.parquet`` or ``.csv``); return their number.

    The entries are one snapshot, written in batches of bounded memory. The file appears once it is
    complete; an existing file is not overwritten. Raises `InvalidInput`, and `MissingExtra` for
    Parquet without pyarrow.
    """
    kind = _kind(file)
    if file.exists():
        raise InvalidInput(f"file: {file} exists; choose another name", field="file")
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    # in the order of arrival, so that an import stores each delivery as one batch again
    query = sa.select(entries).order_by(entries.c.received_at, entries.c.attempt_id, entries.c.side)
    try:
        with store.connect() as connection:
            result = connection.execution_options(yield_per=ROWS_AT_ONCE).execute(query)
            rows = (dict(row) for row in result.mappings())
            written = (_write_parquet if kind == "parquet" else _write_csv)(temporary, rows)
        temporary.replace(file)
    except OSError as error:
        raise InvalidInput(
            f"file: {file} cannot be written ({error.strerror})", field="file"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    return written


def import_entries(store: LedgerStore, file: Path) -> StoreResult:
    """Store every entry of an export file in one transaction; existing ends stay unchanged.

    Of the entries of one attempt and side, the end counts and open ones do not. Raises
    `InvalidInput`, without a change, for a damaged file, for one that is not an export, and for an
    end that differs from the one in the ledger or in an earlier row.
    """
    read = _read_parquet if _kind(file) == "parquet" else _read_csv
    stored = duplicates = 0
    if store.dialect == "postgresql":
        # before the transaction, whose rows in entries_other would lock out each later day
        with _read_errors(file):
            store.partitions.prepare_days({day_of(str(row["attempt_id"])) for row in read(file)})
    with store.connect(writing=True) as connection, _read_errors(file):
        rows_read = enumerate(read(file), start=1)
        for batch in _batches(_checked(file, *row) for row in rows_read):
            for received_at, delivery in groupby(batch, key=itemgetter(0)):
                numbered = [(number, entry) for _, number, entry in delivery]
                rows = first_ends(entry for _, entry in numbered)
                changed = insert_entries(connection, rows, received_at)
                stored += changed
                duplicates += len(numbered) - changed
                if changed < len(numbered):
                    _refuse_other_ends(file, connection, numbered)
    return StoreResult(stored=stored, duplicates=duplicates)


def _refuse_other_ends(
    file: Path, connection: sa.Connection, numbered: list[tuple[int, LedgerEntry]]
) -> None:
    found = other_ends(connection, [entry for _, entry in numbered])
    if found:
        number = next(number for number, entry in numbered if entry is found[0])
        raise InvalidInput(
            f"file: {file}, row {number}: the attempt {found[0].attempt_id} of the side "
            f"{found[0].side} has another end in the ledger or in an earlier row; nothing was "
            "imported; remove one of the two",
            field="file",
        )


def _batches(rows: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, ROWS_AT_ONCE)):
        yield batch


def _checked(file: Path, number: int, row: Row) -> tuple[float, int, LedgerEntry]:
    whole = "received_at"
    try:
        received_at = _TIMESTAMP.validate_python(row.pop("received_at"))
        whole = "entry"
        return received_at, number, LedgerEntry.model_validate(row)
    except ValidationError as error:
        field, problem = first_error(error, whole)
        raise _damaged(file, f"row {number}: {field}: {problem}") from None


def _kind(file: Path) -> str:
    kind = file.suffix.removeprefix(".").lower()
    if kind not in ("parquet", "csv"):
        raise InvalidInput(f"file: {file.name} must end with .parquet or .csv", field="file")
    return kind


def _damaged(file: Path, problem: str) -> InvalidInput:
    return InvalidInput(
        f"file: {file} is not a complete ledger export ({problem}); nothing was imported; "
        "write one with: dimee ledger export",
        field="file",
    )


@contextmanager
def _read_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeError, csv.Error) as error:
        problem = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _damaged(file, problem.splitlines()[0]) from None


def _check_columns(file: Path, columns: list[str]) -> None:
    if columns != [name for name in _NAMES if name in columns or name not in _LATER]:
        different = sorted(set(columns) ^ set(_NAMES))
        problem = (
            f"columns differ: {', '.join(different[:3])}"
            if different
            else "columns in another order"
        )
        raise _damaged(file, problem)


def _write_csv(file: Path, rows: Iterable[Row]) -> int:
    written = 0
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(_NAMES)
        for row in rows:
            writer.writerow([_to_text(row[name]) for name in _NAMES])
            written += 1
        writer.writerow([_END, written] + [_ABSENT] * (len(_NAMES) - 2))
    return written


def _to_text(value: Any) -> str:
    if value is None:
        return _ABSENT
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(value)
    text = str(value)
    return f"\\{text}" if text.startswith("\\") else text


def _read_csv(file: Path) -> Iterator[Row]:
    with open_regular(file) as content:
        lines = io.TextIOWrapper(content, encoding="utf-8-sig", newline="")
        reader = csv.reader(lines, strict=True)
        names = next(reader, [])
        _check_columns(file, names)
        for number, values in enumerate(reader, start=1):
            if values[:2] == [_END, str(number - 1)]:
                return
            if len(values) != len(names):
                raise _damaged(file, f"row {number} has {len(values)} values")
            yield dict(zip(names, map(_from_text, values), strict=True))
    raise _damaged(file, "its end is missing")


def _from_text(text: str) -> str | None:
    if text == _ABSENT:
        return None
    return text[1:] if text.startswith("\\") else text


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra(
            f"Parquet needs pyarrow; run: {install_command('lab')}, or use a .csv file"
        ) from None
    return pyarrow


def _schema(pa: Any) -> Any:
    kinds = {
        sa.String: pa.string(),
        sa.BigInteger: pa.int64(),
        sa.Float: pa.float64(),
        sa.Boolean: pa.bool_(),
    }
    fields = [pa.field(column.name, kinds[type(column.type)]) for column in entries.c]
    return pa.schema(fields)


def _write_parquet(file: Path, rows: Iterable[Row]) -> int:
    pa = _arrow()
    schema = _schema(pa)
    written = 0
    with pa.parquet.ParquetWriter(
        file, schema, compression="zstd", write_page_checksum=True
    ) as out:
        for batch in _batches(rows):
            out.write_table(pa.Table.from_pylist(batch, schema=schema))
            written += len(batch)
    return written


def _read_parquet(file: Path) -> Iterator[Row]:
    pa = _arrow()
    try:
        with (
            open_regular(file) as content,
            pa.parquet.ParquetFile(content, page_checksum_verification=True) as opened,
        ):
            _check_columns(file, opened.schema_arrow.names)
            for found in opened.schema_arrow:
                expected = _schema(pa).field(found.name)
                # a boolean would be read as the number 0 or 1
                if pa.types.is_boolean(found.type) and found.type != expected.type:
                    raise _damaged(file, f"the column {found.name} holds booleans")
            for batch in opened.iter_batches(batch_size=ROWS_AT_ONCE):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise _damaged(file, str(error).splitlines()[0][:120]) from None
