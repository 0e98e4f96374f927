"""The table and the three sentences that open the results."""

from __future__ import annotations

from statistics import median

from lab.reports import paper
from lab.reports.claim import OPENING, base_results, gain, holds, reaching
from lab.reports.commands import all_cloud
from lab.reports.gamma import break_even, kept_decisions
from lab.reports.load import DEFAULT_POLICY, TASKS, Result
from lab.reports.text import NOT_RUN, change, number, of, percent, span, table

LOW_FEE, HIGH_FEE = 1.0, 30.0
HEADER = ["task", "all-cloud", "edge alone", "`dimee-fixed`", "`dimee-adaptive`",
          f"`{DEFAULT_POLICY}` (default)"]  # fmt: skip


def opening_table(results: list[Result], on: str) -> list[str]:
    """Task × method at BERT-base's size: points and cost against all-cloud."""
    here = base_results(results, on)
    rows = []
    for task, title in TASKS.items():
        result = here.get(task)
        if result is None:
            rows.append([title, *[NOT_RUN] * (len(HEADER) - 1)])
            continue
        cloud = (
            f"{number(result.method('cloud')['accuracy'])} % at {number(all_cloud(result), 0)} λ"
        )
        rows.append([title, cloud, *(_cell(result, name) for name in OPENING)])
    return table(HEADER, rows)


def _cell(result: Result, name: str) -> str:
    if not result.has(name):
        return NOT_RUN
    text = brief(result, name)
    if holds(result, name):
        return f"**{text}**"
    return text + _metric(result, name)


def _metric(result: Result, name: str) -> str:
    """The paper's metric, where it alone keeps the claim from holding."""
    row = result.method(name)
    cheap = row["cost_change"] < -paper.CLAIMED_SAVING
    accurate = row["against_cloud"] > -paper.CLAIMED_DROP
    if not (cheap and accurate):
        return ""
    return f" ({result['metric']} {change(result.metric_change(name))})"


def brief(result: Result, name: str) -> str:
    """``−0.11 at −61.2 %``."""
    row = result.method(name)
    return f"{change(row['against_cloud'])} at {percent(row['cost_change'])}"


def sentences(results: list[Result]) -> list[str]:
    """Does the claim hold, what do the centroids add, what does γ do; at BERT-base's size."""
    here = base_results(results, "glue")
    if not here:
        return [f"MPNet on GLUE's validation file: {NOT_RUN}."]
    return [_claim(here), _centroids(here), _fee(here)]


def _named(tasks: list[str]) -> str:
    return f" ({', '.join(tasks)})" if tasks else ""


def _claim(here: dict[str, Result]) -> str:
    whole = len(here)
    found = {name: reaching(here, (name,)) for name in OPENING}
    some, sure = reaching(here, OPENING), reaching(here, OPENING, sure=True)
    fixed, adaptive = found["dimee-fixed"], found["dimee-adaptive"]
    return (
        f"**Does the claim hold?** A saving of more than {paper.CLAIMED_SAVING:g} % at a drop of "
        f"less than {paper.CLAIMED_DROP:g} points is reached by `dimee-fixed` on "
        f"{of(len(fixed), whole)} tasks{_named(fixed)}, by `dimee-adaptive` on "
        f"{of(len(adaptive), whole)}{_named(adaptive)} and by some method of this table on "
        f"{of(len(some), whole)}{_named(some)}; beyond the noise on {of(len(sure), whole)}"
        f"{_named(sure)}."
    )


def _centroids(here: dict[str, Result]) -> str:
    gains = [gain(result, "random-same-mix") for result in here.values()]
    better = sum(value > 0 for value in gains)
    return (
        "**What do the centroids add?** Against random assignment at the same mix of tiers, "
        f"`dimee-fixed` is more accurate on {of(better, len(gains))} tasks, by {span(gains)} "
        f"points (median {change(median(gains))})."
    )


def _fee(here: dict[str, Result]) -> str:
    low = [kept_decisions(result, LOW_FEE) for result in here.values()]
    high = [kept_decisions(result, HIGH_FEE) for result in here.values()]
    even = [value for value in map(break_even, here.values()) if value is not None]
    start = ""
    if even:
        start = f"; saving starts at γ = {number(min(even), 1)} to {number(max(even), 1)} λ"
    fee = next(iter(here.values()))["cost_model"]["cloud_fee"]
    return (
        f"**What does γ do?** It decides whether anything is saved: with the decisions of γ = "
        f"{fee:g} λ, `dimee-fixed` costs {span(low, 0)} % against all-cloud at γ = {LOW_FEE:g} λ "
        f"and {span(high, 0)} % at γ = {HIGH_FEE:g} λ{start}."
    )


def sst2_sentence(results: list[Result]) -> str:
    """The opening table's SST-2 row in one sentence, for the project's README."""
    result = base_results(results, "glue").get("sst2")
    if result is None:
        return f"SST-2 with MPNet on GLUE's validation file: {NOT_RUN}."
    parts = ", ".join(f"`{name}` {brief(result, name)}" for name in OPENING if result.has(name))
    return (
        f"On GLUE's SST-2 validation file with {result.encoder_title} (m = {result['m']}, "
        f"n = {result['n']}, γ = {result['cost_model']['cloud_fee']:g} λ), points of accuracy and "
        f"cost against all-cloud are: {parts} ([results of six tasks](docs/results/README.md))."
    )
