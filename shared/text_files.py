"""Files of texts: one reader for plain lines, TSV, CSV and JSON lines."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, ParamSpec, get_args

from shared.domain import InputText
from shared.errors import InvalidInput
from shared.text import check_text

P = ParamSpec("P")
TextFormat = Literal["lines", "tsv", "csv", "jsonl"]
TEXT_FORMATS: tuple[TextFormat, ...] = get_args(TextFormat)
_FORMAT_BY_SUFFIX: dict[str, TextFormat] = {
    ".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
}  # fmt: skip
_NOT_UTF8 = re.compile(r"[\udc80-\udcff]")
MAX_NAMES = 10
"""Most labels or fields that a message lists."""


@dataclass(frozen=True, slots=True)
class FieldNames:
    """Names of the fields of JSON lines and of the columns of a CSV or TSV file."""

    text: str = "text"
    pair: str = "pair"
    label: str = "label"


_DEFAULT_NAMES = FieldNames()


@dataclass(frozen=True, slots=True)
class NumberedRow:
    """One row and the number of its line, from 1; ``row`` is None if ``error`` says why."""

    line: int
    row: InputText | None
    error: InvalidInput | None = None


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
        """Return the format by the file's suffix; else TSV for pairs and lines for single texts."""
        default: TextFormat = "tsv" if self.pairs else "lines"
        return _FORMAT_BY_SUFFIX.get(file.suffix.lower(), default) if file else default

    def read(self, lines: Iterable[bytes], kind: TextFormat) -> Iterator[NumberedRow]:
        """Yield a row for each line that is not blank, in order; a wrong line is a row too.

        A CSV file has a header. A TSV file may have one, which must name the fields; without it the
        columns are text, pair (of pairs only) and label. Raises `InvalidInput` if the header lacks
        a field, or if pairs are to be read from plain lines.
        """
        if kind == "lines" and self.pairs:
            raise InvalidInput(
                "texts: this bundle needs pairs of texts, and plain lines have none; give TSV "
                "(text, tab, second text), CSV or JSON lines"
            )
        decoded = _decode(lines)
        if kind == "csv":
            return self._read_table(_csv_rows(decoded), header_required=True)
        if kind == "tsv":
            return self._read_table(
                ((number, line.split("\t")) for number, line in enumerate(decoded, start=1)),
                header_required=all(names.text != _DEFAULT_NAMES.text for names in self.fields),
            )
        parse = self._parse_json if kind == "jsonl" else self._parse_line
        return (
            _numbered(number, [line], parse, line)
            for number, line in enumerate(decoded, start=1)
            if line.strip()
        )

    def read_file(self, file: Path, kind: TextFormat | None = None) -> list[InputText]:
        """Return the rows of a file; raises `InvalidInput` with the number of a wrong line."""
        try:
            with file.open("rb") as lines:
                numbered = list(self.read(lines, kind or self.format_of(file)))
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
        self, rows: Iterable[tuple[int, list[str] | csv.Error]], header_required: bool
    ) -> Iterator[NumberedRow]:
        header: list[str] | None = None
        first = True
        for number, cells in rows:
            if isinstance(cells, csv.Error):
                message = f"line {number}: is not valid CSV ({cells})"
                yield NumberedRow(number, None, InvalidInput(message))
                continue
            if not any(map(str.strip, cells)):
                continue
            if first:
                first = False
                if self._names_in(cells):
                    header = cells
                    continue
                if header_required:
                    raise InvalidInput(f"texts: line {number} {self._missing_names(cells)}")
            if header is None:
                yield _numbered(number, cells, self._parse_columns, cells)
            else:
                yield _numbered(number, cells, self._parse_named, cells, header)

    def _parse_line(self, line: str) -> InputText:
        return self._row(line, None, None)

    def _parse_named(self, cells: list[str], header: list[str]) -> InputText:
        if len(cells) != len(header):
            raise InvalidInput(f"has {len(cells)} columns; the header has {len(header)}")
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
        try:
            content = json.loads(line)
        except ValueError as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise InvalidInput(f"is not JSON ({reason}); write one object per line") from None
        except RecursionError:
            raise InvalidInput("is not JSON that can be read: it is nested too deep") from None
        if not isinstance(content, dict):
            raise InvalidInput("is not a JSON object; write one object per line")
        return self._parse_fields(content)

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
        if value is None or value == "":
            if self.label_required:
                raise InvalidInput(f"has no label in {field!r}")
            return None
        return label_name(value, self.labels)

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
        return f"has no field {names} (it has {_list(present)}); name yours with {options}"


def label_name(value: object, labels: Sequence[str]) -> str:
    """Return the label that a name, or a number from 0, stands for; raises `InvalidInput`.

    Numbers are names, not positions, if a label of the bundle is itself a number.
    """
    if isinstance(value, str | int) and not isinstance(value, bool):
        name = str(value)
        if name in labels:
            return name
        positions = not any(label.isdecimal() for label in labels)
        if positions and name.isascii() and name.isdecimal() and int(name) < len(labels):
            return labels[int(name)]
    raise InvalidInput(
        f"has the label {value!r}, which is none of the bundle's ({_list(labels)}); give one of "
        f"these names, or its number from 0"
    )


def _decode(lines: Iterable[bytes]) -> Iterator[str]:
    """Decode UTF-8 without its byte order mark; bytes that are not UTF-8 become surrogates."""
    encoding = "utf-8-sig"
    for line in lines:
        yield line.decode(encoding, "surrogateescape").rstrip("\r\n")
        encoding = "utf-8"


def _csv_rows(lines: Iterator[str]) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Yield each record with the number of its first line."""
    reader = csv.reader((f"{line}\n" for line in lines), strict=True)
    while True:
        number = reader.line_num + 1
        try:
            yield number, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, error


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
            if match := _NOT_UTF8.search(cell):
                before = len(cell[: match.start()].encode("utf-8", "surrogateescape"))
                raise InvalidInput(f"byte {before + 1} is not UTF-8")
        return NumberedRow(number, parse(*given, **named))
    except InvalidInput as error:
        return NumberedRow(number, None, type(error)(f"line {number}: {error.message}"))


def _list(names: Sequence[str]) -> str:
    shown = [name if len(name) <= 40 else f"{name[:39]}…" for name in names[:MAX_NAMES]]
    return ", ".join(shown) + (", …" if len(names) > MAX_NAMES else "")
