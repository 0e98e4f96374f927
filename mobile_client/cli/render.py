"""Format answers as rows of a table."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from shared.errors import DimeeError
from shared.wire import Classification

TEXT_WIDTH = 38
HEADER = (
    f"{'text':<{TEXT_WIDTH}}  {'label':<10} {'conf':>6}  {'tier':<8} {'exit':>4}"
    f" {'ms':>8} {'cost λ':>7}"
)


LEGEND = {
    "^": "escalated",
    "*": "failed over",
    "!": "degraded: the certificate does not hold, or a server was unavailable",
    "$": "kept because the client's escalation budget is used up",
}
"""Meanings of the marks that follow a tier."""


def legend(outcomes: Iterable[Classification | DimeeError]) -> str:
    """Return the meaning of the marks that occur in ``outcomes``; empty without marks."""
    used = {
        mark
        for outcome in outcomes
        if not isinstance(outcome, DimeeError)
        for mark in marks(outcome)
    }
    return "; ".join(f"{mark} {meaning}" for mark, meaning in LEGEND.items() if mark in used)


def marks(outcome: Classification) -> str:
    """Return the marks of an answer."""
    return (
        "^" * outcome.escalated
        + "*" * outcome.failed_over
        + "!" * outcome.degraded
        + "$" * outcome.budget_exhausted
    )


def row(text: str, outcome: Classification | DimeeError) -> str:
    """Return one row: text, label, confidence, tier, exit layer, milliseconds, cost in λ.

    The tier carries the marks of `LEGEND`.
    """
    cell = _fit(text)
    if isinstance(outcome, DimeeError):
        return f"{cell}  {outcome.code}: {outcome.message}"
    tier = outcome.tier.value + marks(outcome)
    end = "  (truncated)" if outcome.truncated else ""
    return (
        f"{cell}  {outcome.label:<10} {outcome.confidence:>6.1%}  {tier:<9}"
        f"{outcome.exit_layer:>4} {outcome.total_ms:>8.1f} {outcome.cost.cost_lambda:>7.1f}{end}"
    )


def _fit(text: str) -> str:
    """Truncate or pad a text to `TEXT_WIDTH` columns; wide characters count as two."""
    line = " ".join(text.split())
    # a terminal would execute control characters
    line = "".join("\ufffd" if unicodedata.category(char) == "Cc" else char for char in line)
    shown, width = "", 0
    for char in line:
        columns = 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if width + columns > TEXT_WIDTH - 1 and len(shown) < len(line) - 1:
            shown, width = shown + "…", width + 1
            break
        shown, width = shown + char, width + columns
    return shown + " " * (TEXT_WIDTH - width)
