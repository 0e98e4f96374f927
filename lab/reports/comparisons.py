"""``comparisons.md``: the default policy against each method of the paper, case by case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.reports.load import DEFAULT_POLICY, PAPER_METHODS, SPLITS, Result
from lab.reports.text import NOT_RUN, ONE_BY_ONE, between, change, number, percent, table

LOST, TIED, WON = "lost", "tied", "won"
VERDICTS = (LOST, TIED, WON)
WHOLE_MODEL = ("bert", "early-exit", "i-splitee")
"""Methods that need all l layers on the mobile."""

HEAD = (
    f"# `{DEFAULT_POLICY}` against each method of the paper",
    "",
    f"This page lists every comparison of the default policy `{DEFAULT_POLICY}` with the paper's "
    "seven methods: every run, every γ of the sweep. `python -m lab.reports` wrote it from the "
    "JSONs in `data/` ([commands](data.md#the-commands)).",
    "",
    f"For each case `{DEFAULT_POLICY}` takes the cheapest setting (Λ, α) that is at least as "
    "accurate as the method on the validation part, and the most accurate one where no setting is. "
    "Both are then measured on the reported examples. The method chooses its α, pools and "
    "centroids anew for that γ.",
    "",
    f"A difference is `{DEFAULT_POLICY}` minus the method, with its 95 % interval over 1,000 "
    "paired bootstrap resamples. The verdict:",
    "",
    f"- *{LOST}*: the interval of accuracy lies wholly below 0, or the interval of cost lies "
    "wholly above 0.",
    f"- *{WON}*: not lost, and the interval of cost lies wholly below 0.",
    f"- *{TIED}*: all others; neither difference can be told from noise, or only the accuracy is "
    "higher at a cost that cannot be told apart.",
    "",
    "A case that is dearer is lost even where it is more accurate. Where two methods are equal, "
    "chance alone puts 2.5 % of the cases beyond each end of a 95 % interval.",
    "",
    ONE_BY_ONE,
)


@dataclass(frozen=True)
class Case:
    """One comparison: a run, a γ and a method."""

    result: Result
    cloud_fee: float
    method: str
    facts: dict[str, Any]

    @property
    def verdict(self) -> str:
        """``lost``, ``tied`` or ``won``, by the rule of the page."""
        return verdict(self.facts)

    @property
    def reason(self) -> str:
        """Loss of a lost case: accuracy, cost or both."""
        less, dearer = _less_accurate(self.facts), _dearer(self.facts)
        parts = ["less accurate"] * less + ["dearer"] * dearer
        if dearer and self.facts["accuracy_interval"][0] > 0:
            parts.append("more accurate")
        return ", ".join(parts)

    @property
    def share(self) -> float:
        """Difference in cost as percent of the method's cost."""
        return float(100 * self.facts["cost_difference"] / self.facts["method_cost"])


def _less_accurate(facts: dict[str, Any]) -> bool:
    return bool(facts["accuracy_interval"][1] < 0)


def _dearer(facts: dict[str, Any]) -> bool:
    return bool(facts["cost_interval"][0] > 0)


def verdict(facts: dict[str, Any]) -> str:
    """The verdict on one comparison's figures."""
    if _less_accurate(facts) or _dearer(facts):
        return LOST
    return WON if facts["cost_interval"][1] < 0 else TIED


def all_cases(results: list[Result]) -> list[Case]:
    """Every comparison of ``results``."""
    return [
        Case(result, float(fee), method, rows[method])
        for result in results
        if result.has_value
        for fee, rows in result["cascade_routing"]["comparisons"].items()
        for method in PAPER_METHODS
    ]


def comparisons_page(results: list[Result]) -> str:
    """The whole page: counts, then lost, tied and won cases."""
    cases = all_cases(results)
    lines = list(HEAD)
    if not cases:
        return "\n".join([*lines, "", f"{NOT_RUN}."]) + "\n"
    lines += ["", *_summary(cases)]
    for wanted in VERDICTS:
        found = [case for case in cases if case.verdict == wanted]
        lines += ["", f"## {wanted.capitalize()}: {len(found):,} of {len(cases):,}", ""]
        lines += _listed(found) if found else ["None."]
    return "\n".join(lines) + "\n"


def count(cases: list[Case]) -> tuple[int, int, int]:
    """(lost, tied, won)."""
    verdicts = [case.verdict for case in cases]
    lost, tied, won = (verdicts.count(wanted) for wanted in VERDICTS)
    return lost, tied, won


def _cell(cases: list[Case]) -> str:
    return " / ".join(f"{number:,}" for number in count(cases))


def _summary(cases: list[Case]) -> list[str]:
    encoders = dict.fromkeys(case.result.encoder for case in cases)
    titles = {case.result.encoder: case.result.encoder_title for case in cases}
    fees = sorted({case.cloud_fee for case in cases})
    lower = sum(case.verdict == WON and case.facts["accuracy_difference"] < 0 for case in cases)
    lines = [
        "## Counts: lost / tied / won",
        "",
        f"All cases: {_cell(cases)}. In {lower:,} of the won cases the point figure of accuracy is "
        "below the method's, within its interval.",
        "",
        "By encoder and report:",
        "",
        *table(
            ["encoder", *(f"`{on}`" for on in SPLITS), "both"],
            [
                [
                    titles[encoder],
                    *(
                        _cell(
                            [c for c in cases if (c.result.encoder, c.result.on) == (encoder, on)]
                        )
                        for on in SPLITS
                    ),
                    _cell([c for c in cases if c.result.encoder == encoder]),
                ]
                for encoder in encoders
            ],
        ),
    ]
    for encoder in encoders:
        here = [case for case in cases if case.result.encoder == encoder]
        rows = [
            [f"`{name}`", *(_cell([c for c in here if (c.method, c.cloud_fee) == (name, fee)])
                            for fee in fees), _cell([c for c in here if c.method == name])]
            for name in PAPER_METHODS
        ]  # fmt: skip
        header = ["method", *(f"γ = {fee:g}" for fee in fees), "all"]
        lines += ["", f"{titles[encoder]}, both reports, by method and γ:", "",
                  *table(header, rows)]  # fmt: skip
    return [*lines, "", *_losses(cases)]


def _losses(cases: list[Case]) -> list[str]:
    """Reasons for lost cases, and the methods they are lost to."""
    lost = [case for case in cases if case.verdict == LOST]
    whole = [case for case in lost if case.method in WHOLE_MODEL]
    rest = [case for case in lost if case.method not in WHOLE_MODEL]
    needs = ", ".join(f"`{name}`" for name in WHOLE_MODEL)
    rows = [
        [
            reason,
            *(f"{sum(case.reason == reason for case in part):,}" for part in (whole, rest, lost)),
        ]
        for reason in sorted({case.reason for case in lost})
    ]
    cloud = sum(case.facts["price"] == 0 for case in lost)
    return [
        "Lost cases by reason:",
        "",
        *table(["because", f"to {needs}", "to the other methods", "all"], rows),
        "",
        f"- {needs} run all l layers on the mobile, where the last layer costs 18 λ whatever γ is. "
        f"`{DEFAULT_POLICY}` has only m layers on the mobile, so that the last layer costs it "
        "oc + γ: more than 18 λ where γ > 15 λ.",
        f"- In {cloud:,} of the {len(lost):,} lost cases the setting chosen on the validation part "
        "is Λ = 0, which sends every text to the cloud.",
    ]


def _listed(cases: list[Case]) -> list[str]:
    rows = [
        [
            case.result.run_title,
            f"`{case.result.on}`",
            f"{case.cloud_fee:g}",
            f"`{case.method}`",
            *([case.reason] if case.verdict == LOST else []),
            f"{change(case.facts['accuracy_difference'])} "
            f"{between(case.facts['accuracy_interval'], signed=True)}",
            f"{change(case.facts['cost_difference'])} "
            f"{between(case.facts['cost_interval'], signed=True)}",
            percent(case.share),
            f"{number(case.facts['cost'])} / {number(case.facts['method_cost'])}",
        ]
        for case in cases
    ]
    lost = cases[0].verdict == LOST
    header = ["run", "report", "γ (λ)", "method", *(["because"] if lost else []),
              "accuracy (points)", "cost (λ)", "cost, of the method's",
              f"λ, `{DEFAULT_POLICY}` / method"]  # fmt: skip
    return table(header, rows, left=5 if lost else 4)
