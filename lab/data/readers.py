"""Readers of CSV, TSV, JSON lines and Parquet files."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from shared.errors import InvalidInput
from shared.files import check_regular
from shared.row_files import csv_delimiter, csv_problem, parse_object, records
from shared.user_files import BYTE_ORDER_MARK, refuse_other_encoding

_SHOWN = 200
"""Characters of column names in a message."""


class Row(NamedTuple):
    """A row of data: its number, counted from 1; its line in the file; and its values by field."""

    number: int
    line: int | None
    values: dict[str, Any]

    @property
    def place(self) -> str:
        """The row for a message: ``row 3``, with its line if that is another number."""
        if self.line is None or self.line == self.number:
            return f"row {self.number}"
        return f"row {self.number} (line {self.line})"


@dataclass(frozen=True)
class Table:
    """Rows of ``source``; ``columns`` is None if each row has its own fields.

    ``class_names`` has the names of numbered labels by field, which hubs and some Parquet files
    give.
    """

    source: str
    columns: tuple[str, ...] | None
    rows: Iterable[Row]
    class_names: dict[str, tuple[str, ...]]


def read_table(path: Path) -> Table:
    """Open the file ``path``; rows are read while they are iterated.

    Raises `InvalidInput` for another suffix than those in `READERS`, and for a file that is not
    what its suffix says, with the number of the line.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InvalidInput(
            f"data: {path} is of no known kind; give a file that ends with {', '.join(READERS)}"
        )
    try:
        check_regular(path)
    except OSError as error:
        raise InvalidInput(
            f"data: {path} cannot be read ({error.strerror}); give a file that you may read"
        ) from None
    return reader(path)


def check_columns(table: Table, fields: Sequence[str]) -> None:
    """Raise `InvalidInput` if a field is no column of ``table``, or more than one."""
    if table.columns is None:
        return
    if not table.columns:
        raise InvalidInput(f"data: {table.source} is empty; write a header and rows")
    counts = Counter(table.columns)
    for field in fields:
        if counts[field] == 0:
            names = ", ".join(table.columns)
            if len(names) > _SHOWN:
                names = f"{names[:_SHOWN]}…"
            delimited = table.source.lower().endswith((".csv", ".tsv"))
            header = ", or add a first line of column names if it has none" if delimited else ""
            raise InvalidInput(
                f"data: {table.source} has no column {field!r}; its columns are {names}: name "
                f"yours with --text-field, --pair-field or --label-field{header}"
            )
        if counts[field] > 1:
            raise InvalidInput(
                f"data: {table.source} has {counts[field]} columns {field!r}; rename all but one"
            )


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines with their ends, without a byte order mark."""
    with path.open("rb") as content:
        for number, line in enumerate(content, start=1):
            if number == 1:
                refuse_other_encoding(line[:4], f"data: {path}")
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise InvalidInput(
                    f"data: {path} line {number} is not UTF-8 (byte {error.start + 1} of the "
                    "line); save the file as UTF-8"
                ) from None
            yield text.removeprefix(BYTE_ORDER_MARK) if number == 1 else text


def _read_csv(path: Path) -> Table:
    first = next(_lines(path), "")
    return _delimited(path, csv_delimiter(first))


def _read_tsv(path: Path) -> Table:
    return _delimited(path, "\t")


def _delimited(path: Path, delimiter: str) -> Table:
    table = _records(path, delimiter)
    header = next(table, None)
    columns = tuple(name.strip() for name in header[1]) if header else ()

    def rows() -> Iterator[Row]:
        for number, (line, cells) in enumerate(table, start=1):
            if len(cells) != len(columns):
                raise InvalidInput(
                    f"data: {path} line {line} has {len(cells)} cells, and the header has "
                    f"{len(columns)}; put cells with a separator or a line break into double quotes"
                )
            yield Row(number, line, dict(zip(columns, cells, strict=True)))

    return Table(str(path), columns, rows(), {})


def _records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for line, cells in records(_lines(path), delimiter):
        if isinstance(cells, csv.Error):
            raise InvalidInput(f"data: {path} line {line} {csv_problem(cells)}")
        yield line, cells


def _read_json_lines(path: Path) -> Table:
    def rows() -> Iterator[Row]:
        number = 0
        for line_number, line in enumerate(_lines(path), start=1):
            if not line.strip():
                continue
            try:
                values = parse_object(line)
            except InvalidInput as error:
                raise InvalidInput(f"data: {path} line {line_number} {error.message}") from None
            number += 1
            yield Row(number, line_number, values)

    return Table(str(path), None, rows(), {})


def _read_parquet(path: Path) -> Table:
    import pyarrow
    import pyarrow.parquet

    if not path.stat().st_size:
        return Table(str(path), None, (), {})
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, ValueError) as error:
        raise InvalidInput(
            f"data: {path} is not a Parquet file ({type(error).__name__}); write it again"
        ) from None
    columns = tuple(file.schema_arrow.names)

    def rows() -> Iterator[Row]:
        number = 0
        batches = file.iter_batches()
        while True:
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                cells = [_values(column) for column in batch.columns]
            except (pyarrow.ArrowException, ValueError, OSError) as error:
                raise InvalidInput(
                    f"data: {path} cannot be read after row {number} ({type(error).__name__}); "
                    "write it again"
                ) from None
            for values in zip(*cells, strict=True):
                number += 1
                yield Row(number, None, dict(zip(columns, values, strict=True)))

    return Table(str(path), columns, rows(), _class_names(file.schema_arrow.metadata or {}))


def _values(column: Any) -> list[Any]:
    """Return the values of a column; those that Python has no type for are None."""
    try:
        values: list[Any] = column.to_pylist()
        return values
    except OverflowError:  # dates before the year 1 or after 9999
        return [None] * len(column)


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Return the names of labels that the library ``datasets`` wrote into a Parquet file."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {
            field: tuple(feature["names"])
            for field, feature in features.items()
            if feature.get("_type") == "ClassLabel"
            and feature.get("names")
            and all(isinstance(name, str) for name in feature["names"])
        }
    except (KeyError, ValueError, AttributeError, TypeError):
        return {}


READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json_lines,
    ".parquet": _read_parquet,
}
"""Readers by the suffix of a file's name."""
