"""Findings of our Figures 2a, 2b, 2c and 3, in sentences made from the JSONs."""

from __future__ import annotations

from collections.abc import Callable

from lab.reports.figures_sweeps import PRICES
from lab.reports.load import Result
from lab.reports.text import UNKNOWN, number, of, span

OWN = ("dimee-fixed", "dimee-adaptive")
SPREAD = ("0.25", "4.0")


def of_figure(figure: str, results: list[Result]) -> list[str]:
    """Sentences on one figure, for each encoder; ``results`` holds each run once."""
    made: dict[str, Callable[[list[Result]], str]] = {
        "2a": _accuracy, "2b": _cost, "2c": _pools, "3": _prices,
    }  # fmt: skip
    encoders = dict.fromkeys(result.encoder_title for result in results)
    return [
        f"{encoder}: {made[figure]([r for r in results if r.encoder_title == encoder])}"
        for encoder in encoders
    ]


def _tasks(results: list[Result]) -> str:
    return f" ({', '.join(result.task_title for result in results)})" if results else ""


def _accuracy(results: list[Result]) -> str:
    def tier(result: Result, name: str) -> float:
        return float(result.method(name)["accuracy"])

    best = [r for r in results
            if tier(r, "cloud") > max(tier(r, "mobile"), tier(r, "edge"))]  # fmt: skip
    above = [r for r in results if any(tier(r, name) > tier(r, "cloud") for name in OWN)]
    return (
        f"the cloud is the most accurate tier on {of(len(best), len(results))} tasks"
        f"{_tasks(best)}. `dimee-fixed` or `dimee-adaptive` is above it on "
        f"{of(len(above), len(results))}{_tasks(above)}."
    )


def _cost(results: list[Result]) -> str:
    gaps = [
        float(r.method("dimee-adaptive")["cost_lambda"] - r.method("mobile")["cost_lambda"])
        for r in results
    ]
    dearer = sum(gap > 0 for gap in gaps)
    shares = ", ".join(
        f"{r.task_title} {number(100 * r.method('dimee-adaptive')['shares']['mobile'], 0)} %"
        for r in results
    )
    return (
        f"`dimee-adaptive` costs more than the mobile alone on {of(dearer, len(results))} tasks, "
        f"by {span(gaps, 1)} λ. The mobile answers: {shares}."
    )


def _pools(results: list[Result]) -> str:
    parts = []
    for result in results:
        sizes = " / ".join(f"{count:,}" for count in result["pools"].values())
        auroc = result["auroc"]["mobile_unsure"].get("nearest centroid")
        shown = UNKNOWN if auroc is None else number(auroc)
        parts.append(f"{result.task_title} {sizes} (AUROC {shown})")
    return (
        "easy / moderate / hard examples, and the AUROC of the distance to the easy centroid for "
        f"'the mobile stays below α' (0.5 is chance): {', '.join(parts)}."
    )


def _prices(results: list[Result]) -> str:
    parts = []
    for price, label in PRICES.items():
        symbol = label.split(",")[0]
        steps = [_step(result, price) for result in results]
        rose, fell = sum(step > 0 for step in steps), sum(step < 0 for step in steps)
        parts.append(
            f"{symbol}: up on {rose}, down on {fell}, the same on {len(steps) - rose - fell} "
            f"({span(steps)} points)"
        )
    return (
        "change in the accuracy of `dimee-fixed` from a quarter of a price to four times of it, "
        f"over {len(results)} tasks. {'; '.join(parts)}."
    )


def _step(result: Result, price: str) -> float:
    low, high = (
        result["by_price"][price][factor]["methods"]["dimee-fixed"]["accuracy"] for factor in SPREAD
    )
    return round(float(high - low), 4)
