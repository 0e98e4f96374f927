"""How figures are written in the pages: one sign, one number of decimals, one kind of table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NOT_RUN = "not run"
UNKNOWN = "–"
"""Stands in a cell for a figure that is not given in the paper or was not measured."""


ONE_BY_ONE = (
    "The bootstrap resamples examples one by one, although examples hang together: the phrases of "
    "SST-2's `test` are cut from the same sentences, and texts of QQP and MNLI occur in several "
    "examples. The intervals of these runs are therefore somewhat too narrow."
)
"""Said wherever a page shows intervals of the bootstrap."""


def number(value: float, decimals: int = 2) -> str:
    """``12.34``, with a true minus and no negative zero."""
    text = f"{value:,.{decimals}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")
    return text.replace("-", "−")


def change(value: float, decimals: int = 2) -> str:
    """``+1.23`` or ``−1.23``; a change of nothing bears no sign."""
    text = number(value, decimals)
    return text if text[0] == "−" or not text.strip("0.") else f"+{text}"


def percent(value: float, decimals: int = 1) -> str:
    """A change in percent: ``−43.1 %``."""
    return f"{change(value, decimals)} %"


def share(value: float) -> str:
    """A share of one as percent: ``38.2``."""
    return number(100 * value, 1)


def between(low_high: Sequence[float], decimals: int = 2, signed: bool = False) -> str:
    """An interval: ``[1.23, 4.56]``, with signs where it is of a change."""
    form = change if signed else number
    return f"[{form(low_high[0], decimals)}, {form(low_high[1], decimals)}]"


def span(values: Sequence[float], decimals: int = 2) -> str:
    """``−1.20 … +0.30``: the smallest and the largest of several changes."""
    low, high = change(min(values), decimals), change(max(values), decimals)
    return low if low == high else f"{low} … {high}"


def of(count: int, whole: int) -> str:
    """``3 of 8``."""
    return f"{count} of {whole}"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], left: int = 1) -> list[str]:
    """A markdown table, the first ``left`` columns to the left and the others to the right."""
    rule = ["---" if i < left else "---:" for i in range(len(header))]
    lines = [header, rule, *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]


def code(lines: Sequence[str]) -> list[str]:
    """A block of commands."""
    return ["```text", *lines, "```"]
