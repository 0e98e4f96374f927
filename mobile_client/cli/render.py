"""Format answers as rows of a table."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Container, Iterable

from shared.errors import DimeeError
from shared.terminal import displayed, one_line, without_controls
from shared.wire import Classification

TEXT_WIDTH = 38
MIN_TEXT_WIDTH = 9
LABEL_WIDTH = 10
MAX_LABEL_WIDTH = 30
ID_WIDTH = 34
"""Width of an identifier and the space before it."""
TEXT_WIDTH_WITH_ID = 30
"""Least width of the text beside an identifier."""


def label_width(labels: Iterable[str]) -> int:
    """Return the width of the column of the labels."""
    widest = max((_columns(label) for label in labels), default=0)
    return min(max(widest, LABEL_WIDTH), MAX_LABEL_WIDTH)


def header(width: int = LABEL_WIDTH) -> str:
    """Return the header of the rows; ``width`` is that of the labels."""
    ids = "  request" if shows_ids(width) else ""
    return f"{'text':<{_text_width(width)}}{_figures_header(width)}{ids}"


def shows_ids(width: int = LABEL_WIDTH) -> bool:
    """Return whether the terminal, or COLUMNS, has room for the identifiers of the requests."""
    columns = shutil.get_terminal_size((0, 0)).columns
    return columns >= TEXT_WIDTH_WITH_ID + len(_figures_header(width)) + ID_WIDTH


def _figures_header(width: int) -> str:
    return f"  {'label':<{width}} {'conf':>6}  {'tier':<8} {'exit':>4} {'ms':>8} {'cost λ':>7}"


def _text_width(width: int) -> int:
    """Return the width of the column of the text: smaller in a narrow terminal, or with COLUMNS."""
    columns = shutil.get_terminal_size((0, 0)).columns
    left = columns - len(_figures_header(width)) - ID_WIDTH * shows_ids(width)
    return min(max(left, MIN_TEXT_WIDTH), TEXT_WIDTH) if columns else TEXT_WIDTH


LEGEND = {
    "^": "escalated",
    "*": "failed over",
    "!": "degraded: the certificate does not hold, or a server was unavailable",
    "$": "kept because the client's escalation budget is used up",
}
"""Meanings of the marks that follow a tier."""


def legend(used: Container[str]) -> str:
    """Return the meaning of the marks in ``used``; empty without marks."""
    return "; ".join(f"{mark} {meaning}" for mark, meaning in LEGEND.items() if mark in used)


def marks(outcome: Classification) -> str:
    """Return the marks of an answer."""
    return (
        "^" * outcome.escalated
        + "*" * outcome.failed_over
        + "!" * outcome.degraded
        + "$" * outcome.budget_exhausted
    )


def row(
    text: str,
    outcome: Classification | DimeeError,
    pair: str | None = None,
    width: int = LABEL_WIDTH,
) -> str:
    """Return one row: text, label, confidence, tier, exit layer, milliseconds, cost in λ.

    It ends with the request's identifier if the terminal has room, and always after an error. The
    tier carries the marks of `LEGEND`. Both texts of a pair share the column of the text;
    ``width`` is the width of the label.
    """
    columns = _text_width(width)
    cell = _fit(text, columns)
    if pair is not None:
        half = (columns - 3) // 2
        cell = f"{_fit(text, columns - 3 - half)} | {_fit(pair, half)}"
    if isinstance(outcome, DimeeError):
        ending = f" (request {outcome.request_id})" if outcome.request_id else ""
        return f"{cell}  {one_line(f'{outcome.code}: {outcome.message}{ending}')}"
    tier = outcome.tier.value + marks(outcome)
    end = f"  {outcome.request_id}" if shows_ids(width) else ""
    end += "  (truncated)" if outcome.truncated else ""
    return (
        f"{cell}  {_fit(outcome.label, width)} {outcome.confidence:>6.1%}  {tier:<9}"
        f"{outcome.exit_layer:>4} {outcome.total_ms:>8.1f} {outcome.cost.cost_lambda:>7.1f}{end}"
    )


def _fit(text: str, columns: int) -> str:
    """Truncate or pad a text to ``columns``; wide characters count as two.

    A character that the terminal's encoding lacks counts as what is shown in its place.
    """
    line = without_controls(" ".join(text.split()))
    ellipsis = displayed("…")
    shown, width = "", 0
    for number, char in enumerate(map(displayed, line)):
        needed = _columns(char)
        if width + needed > columns - len(ellipsis) and _columns(displayed(line[number:])) > (
            columns - width
        ):
            shown, width = shown + ellipsis, width + len(ellipsis)
            break
        shown, width = shown + char, width + needed
    return shown + " " * (columns - width)


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
