"""Rows of CSV, TSV and JSON-lines files, as training and classification read them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from typing import Any

from shared.errors import InvalidInput


def csv_delimiter(first_line: str) -> str:
    """Return the delimiter of a CSV file: ``;`` if its first line has that and no comma."""
    return ";" if ";" in first_line and "," not in first_line else ","


def records(
    lines: Iterable[str], delimiter: str, before: int = 0
) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Yield the records that are not blank, each with the number of the line that it begins on.

    ``lines`` have their line ends; ``before`` is the number of lines before the first of them. A
    record that is not well-formed is yielded as an error.
    """
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        number = before + reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, error
            continue
        if cells:
            yield number, cells


def parse_object(line: str) -> dict[str, Any]:
    """Return the JSON object in a line; raises `InvalidInput` that begins with ``is not``."""
    try:
        content = json.loads(line)
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise InvalidInput(f"is not JSON ({reason}); write one object per line") from None
    except RecursionError:
        raise InvalidInput("is not JSON that can be read: it is nested too deep") from None
    if not isinstance(content, dict):
        raise InvalidInput("is not a JSON object; write one object per line")
    return content
