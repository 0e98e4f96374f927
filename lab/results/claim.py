"""Does the paper's claim hold? A verdict for each run, and three sentences over all."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

from lab.results import paper
from lab.results.gamma import kept_decisions
from lab.results.load import Result
from lab.results.text import NOT_RUN, between, change, number, of, percent, span, table

VARIANTS = ("dimee-fixed", "dimee-adaptive")
SHOWN = (*VARIANTS, "random-same-mix", "edge", "true-difficulty")
HOLDS = "holds"
UNCERTAIN = "within the noise"


def drop(result: Result, method: str) -> float:
    """The worse of the changes against all-cloud: accuracy, and GLUE's metric."""
    return min(float(result.method(method)["against_cloud"]), result.metric_change(method))


def verdict(result: Result, method: str) -> str:
    """Whether the claim holds for ``method``, and if not, which half of it fails.

    It holds where the point figures of accuracy and of GLUE's metric do; where the 95 % interval
    of the accuracy's change reaches beyond the claimed drop, it does so within the noise only.
    """
    row = result.method(method)
    dear = row["cost_change"] >= -paper.CLAIMED_SAVING
    lossy = drop(result, method) <= -paper.CLAIMED_DROP
    if dear or lossy:
        parts = ["saves too little"] * dear + ["loses too much"] * lossy
        return "no: " + ", ".join(parts)
    return HOLDS if row["against_cloud_interval"][0] > -paper.CLAIMED_DROP else UNCERTAIN


def _holds(result: Result, method: str) -> bool:
    return verdict(result, method) in (HOLDS, UNCERTAIN)


def claim_section(results: list[Result]) -> list[str]:
    """The three sentences, the line for each run, and what the words mean."""
    lines = ["## Does the claim hold?", "",
             f"The paper: more than {paper.CLAIMED_SAVING:g} % cheaper than all-cloud at a drop of "
             f"less than {paper.CLAIMED_DROP:g} points."]  # fmt: skip
    if not results:
        return [*lines, "", f"{NOT_RUN}."]
    lines += ["", *(f"{i}. {text}" for i, text in enumerate(sentences(results), start=1))]
    claims = [f"claim, {name.removeprefix('dimee-')}" for name in VARIANTS]
    header = ["run", "split", *(f"`{name}`" for name in SHOWN), *claims]
    return [
        *lines,
        "",
        *table(header, [_line(result) for result in results], left=2),
        "",
        "Each cell: accuracy against all-cloud in points with its 95 % interval, GLUE's metric "
        "where it is another, and cost against all-cloud.",
        f"A claim '{HOLDS}' where the point figures do and the interval lies above "
        f"−{paper.CLAIMED_DROP:g}; it is '{UNCERTAIN}' where the interval reaches below.",
    ]


def _line(result: Result) -> list[str]:
    cells = [_cell(result, name) for name in SHOWN]
    title = f"{result.task_title}, {result.encoder_title}"
    return [title, result.on, *cells, *(verdict(result, name) for name in VARIANTS)]


def _cell(result: Result, method: str) -> str:
    row = result.method(method)
    metric = ""
    if result.has_other_metric:
        metric = f"; {result['metric']} {change(result.metric_change(method))}"
    interval = between(row["against_cloud_interval"], signed=True)
    return f"{change(row['against_cloud'])} {interval}{metric} at {percent(row['cost_change'])}"


def sentences(results: list[Result]) -> list[str]:
    """Three sentences over all runs, each figure from the JSONs."""
    whole = len(results)
    counts = {name: [r for r in results if _holds(r, name)] for name in VARIANTS}
    sure = [r for r in results if any(verdict(r, name) == HOLDS for name in VARIANTS)]
    where = list(dict.fromkeys(r.title for name in VARIANTS for r in counts[name]))
    first = (
        f"By its point figures the claim holds in {of(len(counts['dimee-fixed']), whole)} cases "
        f"(task × encoder × split) with `dimee-fixed` and in "
        f"{of(len(counts['dimee-adaptive']), whole)} with `dimee-adaptive`"
        + (f" ({'; '.join(where)})" if where else "")
        + f", and beyond the noise in {of(len(sure), whole)}: `dimee-fixed` costs "
        f"{_span(results, lambda r: r.method('dimee-fixed')['cost_change'], 1)} % against "
        f"all-cloud and changes GLUE's metric by "
        f"{_span(results, lambda r: r.metric_change('dimee-fixed'))} points."
    )
    gains = [_gain(r, "random-same-mix") for r in results]
    oracle = [_gain(r, "true-difficulty") for r in results]
    better = sum(gain > 0 for gain in gains)
    second = (
        f"What the centroids themselves add: against random assignment at the same mix of tiers "
        f"`dimee-fixed` is the more accurate in {of(better, whole)}, by "
        f"{span(gains)} points (median {change(median(gains))}), and against the oracle that knows "
        f"each sample's true difficulty by {span(oracle)} points."
    )
    cheaper = [r for r in results if _cost(r, "edge") < _cost(r, "dimee-fixed")]
    both = [r for r in cheaper if _gain(r, "edge") <= 0]
    gammas = [kept_decisions(r, 1.0) for r in results]
    third = (
        f"The edge alone is cheaper than `dimee-fixed` in {of(len(cheaper), whole)}, in "
        f"{len(both)} of these also at least as accurate (`dimee-fixed` against it: "
        f"{span([_gain(r, 'edge') for r in results])} points), and every saving hangs on γ: with "
        f"the same decisions `dimee-fixed` costs {span(gammas, 1)} % against all-cloud at γ = "
        f"{number(1, 0)} λ."
    )
    return [first, second, third]


def _span(results: list[Result], value: Callable[[Result], Any], decimals: int = 2) -> str:
    return span([float(value(result)) for result in results], decimals)


def _cost(result: Result, method: str) -> float:
    return float(result.method(method)["cost_lambda"])


def _gain(result: Result, other: str) -> float:
    return float(result.method("dimee-fixed")["accuracy"] - result.method(other)["accuracy"])
