"""Answers as rows that a person reads."""

from __future__ import annotations

import unicodedata

from shared.errors import DimeeError
from shared.wire import Classification

TEXT_WIDTH = 38
HEADER = (
    f"{'text':<{TEXT_WIDTH}}  {'label':<10} {'conf':>6}  {'tier':<8} {'exit':>4}"
    f" {'ms':>8} {'cost λ':>7}"
)


def row(text: str, outcome: Classification | DimeeError) -> str:
    """One line: text, label, confidence, tier, exit layer, milliseconds, λ.

    ^ marks an answer that was escalated, * one that failed over, ! one that went to the cloud
    because its promise does not hold (degraded), $ one that was kept for want of budget.
    """
    shown = _fit(text)
    if isinstance(outcome, DimeeError):
        return f"{shown}  {outcome.code}: {outcome.message}"
    marks = "^" * outcome.escalated + "*" * outcome.failed_over + "!" * outcome.degraded
    marks += "$" * outcome.budget_exhausted
    tier = outcome.tier.value + marks
    cut = "  (cut at the model's limit)" if outcome.truncated else ""
    return (
        f"{shown}  {outcome.label:<10} {outcome.confidence:>6.1%}  {tier:<9}"
        f"{outcome.exit_layer:>4} {outcome.total_ms:>8.1f} {outcome.cost.cost_lambda:>7.1f}{cut}"
    )


def _fit(text: str) -> str:
    """Cut or pad to `TEXT_WIDTH` columns; wide characters count as two."""
    line = " ".join(text.split())
    shown, width = "", 0
    for char in line:
        columns = 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if width + columns > TEXT_WIDTH - 1 and len(shown) < len(line) - 1:
            shown, width = shown + "…", width + 1
            break
        shown, width = shown + char, width + columns
    return shown + " " * (TEXT_WIDTH - width)
