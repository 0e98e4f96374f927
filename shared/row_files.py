"""Rows of CSV, TSV and JSON-lines files, as training and classification read them."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from shared.errors import InvalidInput
from shared.json_text import parse_json


def csv_delimiter(first_line: str) -> str:
    """Return the delimiter of a CSV file: the first of ``,``, ``;`` and tab in its first line."""
    return next((delimiter for delimiter in ",;\t" if delimiter in first_line), ",")


def csv_problem(error: csv.Error) -> str:
    """Return what is wrong with a record, and what to do."""
    if "field limit" in str(error):
        return (
            f"has a cell of more than {csv.field_size_limit():,} characters; shorten it, or close "
            "its double quotes"
        )
    if "new-line character" in str(error):
        return "has a carriage return; end each line with a line feed"
    return (
        f"is not well-formed ({error}); put a cell with double quotes into double quotes, and "
        'write each of its own as ""'
    )


def records(
    lines: Iterable[str], delimiter: str, before: int = 0
) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Yield the records that are not blank, each with the number of the line that it begins on.

    ``lines`` have their line ends; ``before`` is the number of lines before the first of them. A
    record that is not well-formed is yielded as an error, and the line after its first is read as
    the beginning of another record, so that an open double quote hides no record but its own.
    """
    taken: list[str] = []  # lines of the present record
    again: deque[str] = deque()  # lines of a wrong record, to be read again
    rest = iter(lines)

    def next_lines() -> Iterator[str]:
        while True:
            line = again.popleft() if again else next(rest, None)
            if line is None:
                return
            taken.append(line)
            yield line

    number = before + 1
    reader = csv.reader(next_lines(), delimiter=delimiter, strict=True)
    while True:
        taken.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            again.extendleft(reversed(taken[1:]))
            yield number, error
            number += 1
            reader = csv.reader(next_lines(), delimiter=delimiter, strict=True)
            continue
        if cells:
            yield number, cells
        number += len(taken)


def parse_object(line: str) -> dict[str, Any]:
    """Return the JSON object in a line; raises `InvalidInput` that begins with ``is not``."""
    try:
        content = parse_json(line)
    except ValueError as error:
        a_list = line.lstrip().startswith("[") and "nested" not in str(error)
        reason = "a list begins there" if a_list else str(error)
        raise InvalidInput(f"is not JSON ({reason}); write one object per line") from None
    if not isinstance(content, dict):
        raise InvalidInput("is not a JSON object; write one object per line")
    return content
