"""Verdicts on the paper's claim, run by run."""

from __future__ import annotations

from lab.reports import paper
from lab.reports.load import BASE, DEFAULT_POLICY, MEAN_POLICY, TASKS, Result, select
from lab.reports.render import change, percent

OPENING = ("edge", "dimee-fixed", "dimee-adaptive", DEFAULT_POLICY)
"""Methods of the table that opens the results."""
CLAIM_METHODS = (*OPENING, MEAN_POLICY)
"""Methods for which the page of the claim has a verdict."""

HOLDS = "holds"
UNCERTAIN = "holds, within the noise"
CONSTANT_SHARE = 0.98


def verdict(result: Result, method: str) -> str:
    """Return `HOLDS`, `UNCERTAIN`, or "no:" and the part of the claim that ``method`` misses.

    The drop is the larger of the drops in accuracy and in the paper's metric.
    """
    row = result.method(method)
    drop = min(float(row["against_cloud"]), result.metric_change(method))
    saves_too_little = row["cost_change"] >= -paper.CLAIMED_SAVING
    loses_too_much = drop <= -paper.CLAIMED_DROP
    if saves_too_little or loses_too_much:
        parts = ["saves too little"] * saves_too_little + ["loses too much"] * loses_too_much
        return "no: " + ", ".join(parts)
    accurate = row["against_cloud_interval"][0] > -paper.CLAIMED_DROP
    cheap = row["cost_change_interval"][1] < -paper.CLAIMED_SAVING
    return HOLDS if accurate and cheap else UNCERTAIN


def holds(result: Result, method: str, certain: bool = False) -> bool:
    """Return True if the point figures meet the claim, and the intervals too if ``certain``."""
    accepted = (HOLDS,) if certain else (HOLDS, UNCERTAIN)
    return result.has(method) and verdict(result, method) in accepted


def tasks_reached(
    results: dict[str, Result], methods: tuple[str, ...], certain: bool = False
) -> list[str]:
    """Return the titles of the tasks on which one of ``methods`` meets the claim (`holds`)."""
    return [
        title
        for task, title in TASKS.items()
        if task in results and any(holds(results[task], name, certain) for name in methods)
    ]


def gain(result: Result, other: str) -> float:
    """Return the accuracy of ``dimee-fixed`` less that of another method, in points."""
    return float(result.method("dimee-fixed")["accuracy"] - result.method(other)["accuracy"])


def constant_exits(result: Result) -> list[int]:
    """Return the exits (1-based) with at least `CONSTANT_SHARE` of their answers in one class."""
    shares = result["exits"]["largest_answer_share"]
    return [exit_ for exit_, share in enumerate(shares, start=1) if share >= CONSTANT_SHARE]


def brief(result: Result, name: str) -> str:
    """Return the change in accuracy and cost against all-cloud: ``−0.11 at −61.2 %``."""
    row = result.method(name)
    return f"{change(row['against_cloud'])} at {percent(row['cost_change'])}"


def sst2_sentence(results: list[Result]) -> str:
    """Return the SST-2 row of the opening table as a sentence, for the project's README."""
    result = select(results, BASE, "glue").get("sst2")
    if result is None:
        return "SST-2 with MPNet on GLUE's validation file: not run."
    parts = ", ".join(f"`{name}` {brief(result, name)}" for name in OPENING if result.has(name))
    return (
        f"On GLUE's SST-2 validation file with {result.encoder_title} (m = {result['m']}, "
        f"n = {result['n']}, γ = {result['cost_model']['cloud_fee']:g} λ), points of accuracy and "
        f"cost against all-cloud are: {parts} ([results of six tasks](docs/results/README.md))."
    )
