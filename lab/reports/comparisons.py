"""Paired comparisons of the default policy with each method of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.reports.load import PAPER_METHODS, Result

LOST, TIED, WON = "lost", "tied", "won"
VERDICTS = (LOST, TIED, WON)
WHOLE_MODEL = ("bert", "early-exit", "i-splitee")
"""Methods that need all l layers on the mobile."""


@dataclass(frozen=True)
class Case:
    """One comparison: a run, a γ and a method."""

    result: Result
    cloud_fee: float
    method: str
    facts: dict[str, Any]

    @property
    def less_accurate(self) -> bool:
        """True if the interval of accuracy lies below 0."""
        return bool(self.facts["accuracy_interval"][1] < 0)

    @property
    def costs_more(self) -> bool:
        """True if the interval of cost lies above 0."""
        return bool(self.facts["cost_interval"][0] > 0)

    @property
    def verdict(self) -> str:
        """`LOST`, `TIED` or `WON`, by the rule of the page."""
        if self.less_accurate or self.costs_more:
            return LOST
        return WON if self.facts["cost_interval"][1] < 0 else TIED

    @property
    def reason(self) -> str:
        """Reason of a lost case, such as ``less accurate, more expensive``."""
        parts = ["less accurate"] * self.less_accurate + ["more expensive"] * self.costs_more
        if self.costs_more and self.facts["accuracy_interval"][0] > 0:
            parts.append("more accurate")
        return ", ".join(parts)

    @property
    def cost_share(self) -> float:
        """Difference in cost in percent of the method's cost."""
        return float(100 * self.facts["cost_difference"] / self.facts["method_cost"])


def all_cases(results: list[Result]) -> list[Case]:
    """Return every comparison of ``results``."""
    return [
        Case(result, float(fee), method, rows[method])
        for result in results
        if result.has_cascade
        for fee, rows in result["cascade_routing"]["comparisons"].items()
        for method in PAPER_METHODS
    ]


def count(cases: list[Case]) -> tuple[int, int, int]:
    """Return the numbers of (lost, tied, won) cases."""
    verdicts = [case.verdict for case in cases]
    lost, tied, won = (verdicts.count(verdict) for verdict in VERDICTS)
    return lost, tied, won


def tally(cases: list[Case]) -> str:
    """Return the three counts as a cell: ``1 / 20 / 300``."""
    return " / ".join(f"{number:,}" for number in count(cases))
