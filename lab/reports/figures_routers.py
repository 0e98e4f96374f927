"""Plots of the routers: the accuracy–cost frontier of every method, and AUROC."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from lab.reports.load import METHODS, Result
from lab.reports.style import (
    COLOURS,
    COST,
    MARKERS,
    ROUTERS,
    Plot,
    label_outer,
    legend,
    line,
    panels,
)

CURVES = (
    "early-exit", "i-splitee", "random-same-mix", "length-only", "nearest-neighbours",
    "true-difficulty", "dimee-adaptive", "dimee-fixed",
)  # fmt: skip
HIDDEN = "cheapest-right"
"""Oracle that is left out of the frontier: its accuracy is far above the others."""

TARGETS = {
    "mobile_wrong": "the mobile would be wrong",
    "mobile_below_alpha": "the mobile stays below α",
}


def plots(results: list[Result]) -> list[Plot]:
    """Return the frontier and the AUROC bars; ``results`` holds each run once."""
    return [
        Plot(
            "frontier",
            "Accuracy and cost of every method",
            "Lines: over α, with refitted pools and centroids. Large marks: each method at its own "
            "setting. Up and left is better. A router adds information where its line is above "
            "`random-same-mix`. The oracle `cheapest-right` is far above the others and only in "
            "the tables.",
            [_frontier(result) for result in results],
            _draw_frontier,
        ),
        Plot(
            "auroc",
            "AUROC of each router, before any layer has run",
            "AUROC on the reported examples; 0.5 (black line) is chance. A bar is absent where "
            "a router is not defined: a pool is empty, or only one class is present.",
            [_auroc(result) for result in results],
            _draw_auroc,
        ),
    ]


def _frontier(result: Result) -> dict[str, Any]:
    def point_of(row: dict[str, Any]) -> list[float]:
        return [row["cost_change"], row["accuracy"]]

    return {
        "title": result.title,
        "curves": {
            method: [point_of(point["methods"][method]) for point in result["by_alpha"].values()]
            for method in CURVES
        },
        "points": {name: point_of(result.method(name)) for name in METHODS if name != HIDDEN},
    }


def _draw_frontier(data: list[dict[str, Any]]) -> Figure:
    columns = min(2, len(data))
    figure, axes = panels(len(data), columns, 5.2, 3.6)
    for axis, panel in zip(axes, data, strict=True):
        axis.set_title(panel["title"])
        for method, points in panel["curves"].items():
            axis.plot(*zip(*points, strict=True), **line(method) | {"markersize": 3})
        for method, (cost, accuracy) in reversed(panel["points"].items()):
            axis.plot(
                cost, accuracy, MARKERS[method], color=COLOURS[method], markersize=9, zorder=4,
                label=method if method not in panel["curves"] else "_",
                markeredgecolor="white" if MARKERS[method] not in "x+1" else None,
            )  # fmt: skip
        axis.axvline(0, color="black", linewidth=0.8)
    label_outer(axes, columns, COST, "accuracy (%)")
    legend(figure, axes, 5)
    return figure


def _auroc(result: Result) -> dict[str, Any]:
    return {
        "title": result.title,
        **{
            target: {router: result["auroc"][target].get(router) for router, _ in ROUTERS}
            | {"share": result["auroc"][target]["share"]}
            for target in TARGETS
        },
    }


def _draw_auroc(data: list[dict[str, Any]]) -> Figure:
    figure, axes = panels(2, 1, max(6.5, 1.35 * len(data)), 2.8)
    for axis, (target, meaning) in zip(axes, TARGETS.items(), strict=True):
        for number, (router, colour) in enumerate(ROUTERS):
            defined = [(i, panel[target][router]) for i, panel in enumerate(data)
                     if panel[target][router] is not None]  # fmt: skip
            positions = [i + 0.2 * (number - 1.5) for i, _ in defined]
            bars = axis.bar(
                positions, [value for _, value in defined], 0.19, color=colour, label=router
            )
            axis.bar_label(bars, fmt="%.2f", fontsize=6)
        axis.axhline(0.5, color="black", linewidth=1)
        names = [
            f"{panel['title'].replace(', ', chr(10))}\n{100 * panel[target]['share']:.0f} % true"
            for panel in data
        ]
        axis.set_xticks(range(len(data)), names, fontsize=7)
        axis.set_xlim(-0.6, len(data) - 0.4)
        axis.set_ylim(0, 1.05)
        axis.set_title(f"'{meaning}'")
        axis.set_ylabel("AUROC (0.5 = chance)")
        axis.grid(False, axis="x")
    legend(figure, axes)
    return figure
