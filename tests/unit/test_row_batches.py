"""Batches of rows: full ones, those of a slow source, errors of the source, an early end."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import pytest

from mobile_client.cli.batches import batches
from shared.domain import InputText
from shared.errors import InvalidInput
from shared.labels import counted
from shared.text_files import NumberedRow


def numbered(count: int) -> Iterator[NumberedRow]:
    """Yield ``count`` rows."""
    for number in range(1, count + 1):
        yield NumberedRow(number, InputText("fine"))


def test_rows_keep_their_order_in_full_batches() -> None:
    found = list(batches(numbered(7), size=3, wait_s=300))
    assert [[row.line for row in batch] for batch in found] == [[1, 2, 3], [4, 5, 6], [7]]
    assert list(batches(numbered(0), size=3)) == []


def test_row_is_given_before_the_next_can_be_read() -> None:
    answered = Event()

    def slow() -> Iterator[NumberedRow]:
        yield from numbered(1)
        assert answered.wait(timeout=300)
        yield from numbered(1)

    found = batches(slow(), size=200, wait_s=0.01)
    assert len(next(found)) == 1
    answered.set()
    assert len(next(found)) == 1
    assert next(found, None) is None


def test_rows_before_an_error_of_the_source_are_given_first() -> None:
    def wrong() -> Iterator[NumberedRow]:
        yield from numbered(2)
        raise InvalidInput("texts: cannot be read")

    found = batches(wrong(), size=200, wait_s=300)
    assert len(next(found)) == 2
    with pytest.raises(InvalidInput, match="cannot be read"):
        next(found)


def test_reading_ends_when_the_batches_are_no_longer_wanted() -> None:
    closed = Event()

    def endless() -> Iterator[NumberedRow]:
        try:
            while True:
                yield from numbered(1)
        finally:
            closed.set()

    found = batches(endless(), size=2, wait_s=300)
    assert len(next(found)) == 2
    found.close()
    assert closed.wait(timeout=300)


def test_one_has_no_plural() -> None:
    assert (counted(1, "request"), counted(2000, "request")) == ("1 request", "2,000 requests")
    assert counted(0, "column") == "0 columns"
