"""Files of texts: one reader for plain lines, TSV, CSV and JSON lines."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, ParamSpec, get_args

from shared.domain import InputText
from shared.errors import InvalidInput, TooLarge
from shared.files import open_stream
from shared.labels import counted, find_label, listed
from shared.row_files import csv_delimiter, parse_object, records
from shared.text import check_text
from shared.user_files import (
    BYTE_ORDER_MARK,
    bounded_lines,
    refuse_other_encoding,
    without_line_end,
)

P = ParamSpec("P")
TextFormat = Literal["lines", "tsv", "csv", "jsonl"]
TEXT_FORMATS: tuple[TextFormat, ...] = get_args(TextFormat)
_FORMAT_BY_SUFFIX: dict[str, TextFormat] = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
}  # fmt: skip
_NOT_READ = (".parquet", ".xlsx", ".xls", ".gz", ".zip")
"""Suffixes of files that hold no lines of text."""
MAX_LINE_CHARS = 1024 * 1024
"""Longest line that is read: 20,000 characters of a text, a second text and other fields."""
_NOT_UTF8 = re.compile(r"[\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class FieldNames:
    """Names of the fields of JSON lines and of the columns of a CSV or TSV file."""

    text: str = "text"
    pair: str = "pair"
    label: str = "label"


_DEFAULT_NAMES = FieldNames()


@dataclass(frozen=True, slots=True)
class NumberedRow:
    """One row and the number of its line, from 1; ``row`` is None if ``error`` says why.

    ``unit`` is what the number counts.
    """

    line: int
    row: InputText | None
    error: InvalidInput | None = None
    unit: str = "line"

    @property
    def place(self) -> str:
        """The row for a message: ``line 3``."""
        return f"{self.unit} {self.line}"


@dataclass(frozen=True, slots=True)
class TextReader:
    """Reads rows for a bundle that takes pairs of texts or single texts.

    ``labels`` are the bundle's; labels in the file are names, or numbers from 0. Without ``labels``
    those of the file are not read. The first of ``fields`` that a header or a JSON object has is
    used. A row must have a label if ``label_required``.
    """

    pairs: bool
    labels: Sequence[str] | None = None
    fields: tuple[FieldNames, ...] = (_DEFAULT_NAMES,)
    label_required: bool = False

    def format_of(self, file: Path | None = None) -> TextFormat:
        """Return the format by the file's suffix; else TSV for pairs and lines for single texts.

        Raises `InvalidInput` for a suffix in `_NOT_READ`.
        """
        if file is not None and file.suffix.lower() in _NOT_READ:
            raise InvalidInput(
                f"texts: {file} holds no lines of text; save it as CSV, TSV or JSON lines"
            )
        default: TextFormat = "tsv" if self.pairs else "lines"
        return _FORMAT_BY_SUFFIX.get(file.suffix.lower(), default) if file else default

    def read(
        self, lines: Iterable[bytes], kind: TextFormat, *, blank_rows: bool = False
    ) -> Iterator[NumberedRow]:
        """Yield a row for each line that is not blank, in order; a wrong line is a row too.

        With ``blank_rows`` a blank line is a row with an error, so that the rows of plain lines,
        JSON lines and TSV without a header match the lines one by one. A CSV file has a header. A
        TSV file may have one, which must name the fields; without it the columns are text, pair (of
        pairs only) and label. Raises `InvalidInput` if the header lacks a field, or if pairs are to
        be read from plain lines.
        """
        if kind == "lines" and self.pairs:
            raise InvalidInput(
                "texts: this bundle needs pairs of texts, and plain lines have none; give TSV "
                "(text, tab, second text), CSV or JSON lines"
            )
        decoded = _decode(lines)
        if kind in ("csv", "tsv"):
            return self._read_table(decoded, kind, blank_rows)
        parse = self._parse_json if kind == "jsonl" else self._parse_line
        return self._read_lines(enumerate(decoded, start=1), parse, blank_rows)

    @staticmethod
    def _read_lines(
        lines: Iterable[tuple[int, str]], parse: Callable[[str], InputText], blank_rows: bool
    ) -> Iterator[NumberedRow]:
        for number, line in lines:
            if line.strip():
                yield _numbered(number, [line], parse, line)
            elif blank_rows:
                yield NumberedRow(number, None, InvalidInput(f"line {number}: is empty"))

    def read_file(self, file: Path, kind: TextFormat | None = None) -> list[InputText]:
        """Return the rows of a file; raises `InvalidInput` with the number of a wrong line."""
        kind = kind or self.format_of(file)
        try:
            with open_stream(file) as lines:
                numbered = list(self.read(lines, kind))
        except OSError as error:
            raise InvalidInput(f"texts: {file} cannot be read ({error.strerror})") from None
        except InvalidInput as error:
            raise InvalidInput(f"{file}: {error.message.removeprefix('texts: ')}") from None
        rows = []
        for one in numbered:
            if one.row is None:
                raise InvalidInput(f"{file} {one.error.message if one.error else ''}")
            rows.append(one.row)
        if not rows:
            raise InvalidInput(f"texts: {file} has no text; write one text per line")
        return rows

    def _read_table(
        self, lines: Iterator[str], kind: TextFormat, blank_rows: bool
    ) -> Iterator[NumberedRow]:
        number, first, blank = _first_not_blank(lines)
        delimiter = csv_delimiter(first) if kind == "csv" else "\t"
        header = _split_header(first, delimiter)
        if names := self._names_in(header):
            for name in (names.text, names.pair, names.label):
                if header.count(name) > 1:
                    raise InvalidInput(f"texts: line {number} has two columns {name!r}; rename one")
            rest = (f"{line}\n" for line in lines)
            for line, cells in records(rest, delimiter, before=number):
                if isinstance(cells, csv.Error):
                    error = InvalidInput(f"line {line}: is not well-formed ({cells})")
                    yield NumberedRow(line, None, error)
                elif any(map(str.strip, cells)):
                    yield _numbered(line, cells, self._parse_named, cells, header)
            return
        if first and (kind == "csv" or not self._default_names):
            raise InvalidInput(f"texts: line {number} {self._missing_names(header)}")
        numbered = enumerate(chain(blank, [first] if first else [], lines), start=1)
        yield from self._read_lines(
            numbered, lambda line: self._parse_columns(line.split("\t")), blank_rows
        )

    @property
    def _default_names(self) -> bool:
        """True if no option names the field of the text."""
        return any(names.text == _DEFAULT_NAMES.text for names in self.fields)

    def _parse_line(self, line: str) -> InputText:
        return self._row(line, None, None)

    def _parse_named(self, cells: list[str], header: list[str]) -> InputText:
        if len(cells) != len(header):
            raise InvalidInput(
                f"has {counted(len(cells), 'column')}; the header has {len(header):,}"
            )
        return self._parse_fields(dict(zip(header, cells, strict=True)))

    def _parse_columns(self, cells: list[str]) -> InputText:
        names = ["text", *(["pair"] if self.pairs else [])]
        most = len(names) + (self.labels is not None)
        if not len(names) <= len(cells) <= most:
            expected = ", ".join([*names, "label"][:most])
            raise InvalidInput(
                f"has {len(cells)} of the columns that tabs separate; give {expected}"
                + (" (label is optional)" if most > len(names) else "")
            )
        label = cells[len(names)] if len(cells) > len(names) else None
        return self._row(cells[0], cells[1] if self.pairs else None, label)

    def _parse_json(self, line: str) -> InputText:
        return self._parse_fields(parse_object(line))

    def _parse_fields(self, content: Mapping[str, Any]) -> InputText:
        names = self._names_in(content)
        if names is None:
            raise InvalidInput(self._missing_names(list(content)))
        pair = content.get(names.pair)
        return self._row(content[names.text], pair, content.get(names.label), names)

    def _row(
        self, text: object, pair: object, label: object, names: FieldNames = _DEFAULT_NAMES
    ) -> InputText:
        if not self.pairs and pair not in (None, ""):
            raise InvalidInput("has a pair, but this bundle takes single texts")
        return InputText(
            check_text(text, names.text),
            check_text(pair, names.pair) if self.pairs else None,
            self._label(label, names.label),
        )

    def _label(self, value: object, field: str) -> str | None:
        if self.labels is None:
            return None
        label = find_label(value, self.labels)
        if label is None and self.label_required:
            raise InvalidInput(f"has no label in {field!r}")
        return label

    def _names_in(self, present: Container[str]) -> FieldNames | None:
        for names in self.fields:
            if names.text in present and (names.pair in present or not self.pairs):
                return names
        return None

    def _missing_names(self, present: Sequence[str]) -> str:
        names = " or ".join(
            " and ".join(map(repr, [names.text, names.pair] if self.pairs else [names.text]))
            for names in self.fields
        )
        options = "--text-field and --pair-field" if self.pairs else "--text-field"
        found = listed(present) or "no field"
        return f"has no field {names} (it has {found}); name yours with {options}"


def _decode(lines: Iterable[bytes]) -> Iterator[str]:
    """Decode UTF-8 without its byte order mark; bytes that are not UTF-8 become surrogates."""
    for number, line in enumerate(bounded_lines(lines)):
        if not number:
            refuse_other_encoding(line[:4], "texts: the input")
        text = without_line_end(line.decode("utf-8", "surrogateescape"))
        yield text.removeprefix(BYTE_ORDER_MARK) if not number else text


def _split_header(line: str, delimiter: str) -> list[str]:
    """Return the names in a header; none if the line is too long to be one."""
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:
        return []


def _first_not_blank(lines: Iterator[str]) -> tuple[int, str, list[str]]:
    """Return the number of the first line that is not blank, the line, and the lines before it."""
    blank: list[str] = []
    for line in lines:
        if line.strip():
            return len(blank) + 1, line, blank
        blank.append(line)
    return 1, "", blank


def _numbered(
    number: int,
    cells: Sequence[str],
    parse: Callable[P, InputText],
    /,
    *given: P.args,
    **named: P.kwargs,
) -> NumberedRow:
    """Return the parsed row, or the error with the number of the line.

    ``cells`` are the strings of the line, which must be UTF-8.
    """
    try:
        for cell in cells:
            if len(cell) > MAX_LINE_CHARS:
                raise TooLarge(
                    f"is longer than {MAX_LINE_CHARS:,} characters", limit=MAX_LINE_CHARS
                )
            if match := _NOT_UTF8.search(cell):
                before = len(cell[: match.start()].encode("utf-8", "surrogateescape"))
                raise InvalidInput(f"byte {before + 1} is not UTF-8")
        return NumberedRow(number, parse(*given, **named))
    except InvalidInput as error:
        return NumberedRow(number, None, type(error)(f"line {number}: {error.message}"))
