"""Templates of the result pages, and the formats of the figures in them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

NOT_RUN = "not run"
UNKNOWN = "–"
"""Cell of a figure that the paper does not give or that was not measured."""


def number(value: float, decimals: int = 2) -> str:
    """Format as ``12.34``, with a typographic minus and no negative zero."""
    text = f"{value:,.{decimals}f}"
    if not text.strip("-0.,"):
        text = text.lstrip("-")
    return text.replace("-", "−")


def change(value: float, decimals: int = 2) -> str:
    """Format as ``+1.23`` or ``−1.23``; zero has no sign."""
    text = number(value, decimals)
    return text if text[0] == "−" or not text.strip("0.") else f"+{text}"


def percent(value: float, decimals: int = 1) -> str:
    """Format a change in percent: ``−43.1 %``."""
    return f"{change(value, decimals)} %"


def share(value: float) -> str:
    """Format a share between 0 and 1 in percent: ``38.2``."""
    return number(100 * value, 1)


def between(low_high: Sequence[float], decimals: int = 2, signed: bool = False) -> str:
    """Format an interval: ``[1.23, 4.56]``; ``signed`` for an interval of a change."""
    form = change if signed else number
    return f"[{form(low_high[0], decimals)}, {form(low_high[1], decimals)}]"


def span(values: Sequence[float], decimals: int = 2) -> str:
    """Format as ``−1.20 … +0.30``: the smallest and the largest of several changes."""
    low, high = change(min(values), decimals), change(max(values), decimals)
    return low if low == high else f"{low} … {high}"


def of(count: int, total: int) -> str:
    """Format as ``3 of 8``."""
    return f"{count} of {total}"


def auroc(value: float | None) -> str:
    """Format an AUROC with three decimals, or `UNKNOWN`."""
    return UNKNOWN if value is None else number(value, 3)


def header(columns: str | Sequence[str], left: int = 1) -> str:
    """Return the two head lines of a Markdown table; the first ``left`` columns align left.

    ``columns`` are the titles, or one text with ``|`` between them.
    """
    titles = columns.split("|") if isinstance(columns, str) else columns
    rule = ["---" if i < left else "---:" for i in range(len(titles))]
    return "\n".join(f"| {' | '.join(cell.strip() for cell in line)} |" for line in (titles, rule))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lab.reports"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, from our own JSONs
        extensions=["jinja2.ext.do"],
    )
    formats = (number, change, percent, share, between, span, of, auroc, header)
    environment.globals |= {form.__name__: form for form in formats}
    environment.globals |= {"NOT_RUN": NOT_RUN, "UNKNOWN": UNKNOWN}
    return environment


def render(name: str, **context: Any) -> str:
    """Return the page of the template ``name``.md.j2 for ``context``."""
    return _environment().get_template(f"{name}.md.j2").render(context)
