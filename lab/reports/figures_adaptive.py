"""Plots of the ablation of m and n, and of the adaptive rule's drift and gain on other domains."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lab.reports.figures_sweeps import log_axis
from lab.reports.load import Result
from lab.reports.render import change
from lab.reports.style import COLOURS, COST, MARKERS, POOLS, Plot, label_outer, legend, panels

SHIFT_ROWS = ("mobile", "edge", "cloud", "random-same-mix", "dimee-fixed", "dimee-adaptive")


def plots(results: list[Result]) -> list[Plot]:
    """Return an ablation for each encoder, the drift, and the shift if a result has it."""
    figures = []
    for encoder in dict.fromkeys(result.encoder for result in results):
        of_encoder = [result for result in results if result.encoder == encoder]
        figures.append(
            Plot(
                f"layers-{encoder}",
                f"Accuracy and cost of dimee-fixed over m and n, {of_encoder[0].encoder_title}",
                "α is chosen for each pair; the framed cell is the pair of the tables. Of each two "
                "panels the left one shows accuracy, the right one cost.",
                [_layers(result) for result in of_encoder],
                _draw_layers,
            )
        )
    figures.append(
        Plot(
            "drift",
            "Distance by which the adaptive rule moves its centroids",
            "In units of the distance to the nearest other centroid at the start. The title has "
            "the share of the examples that the two rules send to different tiers.",
            [_drift(result) for result in results],
            _draw_drift,
        )
    )
    shifted = [result for result in results if "shift" in result.facts]
    if shifted:
        figures.append(
            Plot(
                "shift",
                "The adaptive rule on reviews of other goods",
                "A model of film reviews on reviews of other goods, with the α, pools and "
                "centroids of the film reviews; accuracy with 95 % intervals.",
                [_shift(result) for result in shifted],
                _draw_shift,
            )
        )
    return figures


def _layers(result: Result) -> dict[str, Any]:
    return {
        "title": result.title,
        "at": [result["m"], result["n"]],
        "cells": [
            [row["m"], row["n"], row["against_cloud"], row["cost_change"]]
            for row in result["by_layers"]
        ],
    }


def _draw_layers(data: list[dict[str, Any]]) -> Figure:
    deep = max(n for panel in data for _, n, *_ in panel["cells"]) > 6
    columns = 2 if deep or len(data) == 1 else 4
    width, height = (5.6, 4.2) if deep else (3.1, 2.5)
    figure, axes = panels(2 * len(data), columns, width, height)
    kinds = ((2, "accuracy (points)", "PuOr", 1), (3, "cost (%)", "PuOr_r", 0))
    for number, panel in enumerate(data):
        for part, meaning, colours, decimals in kinds:
            axis = axes[2 * number + part - 2]
            rows = max(m for m, *_ in panel["cells"])
            last = max(n for _, n, *_ in panel["cells"])
            grid = [[float("nan")] * (last - 1) for _ in range(rows)]
            for cell in panel["cells"]:
                grid[cell[0] - 1][cell[1] - 2] = cell[part]
                axis.text(
                    cell[1], cell[0], change(cell[part], decimals),
                    ha="center", va="center", fontsize=6.5,
                )  # fmt: skip
            bound = max(max(abs(cell[part]) for cell in panel["cells"]), 0.1) * 1.6
            axis.pcolormesh(
                range(2, last + 1), range(1, rows + 1), grid, cmap=colours, vmin=-bound, vmax=bound,
                shading="nearest",
            )  # fmt: skip
            m, n = panel["at"]
            axis.add_patch(Rectangle((n - 0.5, m - 0.5), 1, 1, fill=False, linewidth=1.8))
            axis.set_title(f"{panel['title']}\n{meaning}", fontsize=8)
            axis.set_xticks(range(2, last + 1))
            axis.set_yticks(range(1, rows + 1))
            axis.grid(False)
    label_outer(axes, columns, "n, layers on the edge", "m, layers on the mobile")
    return figure


def _drift(result: Result) -> dict[str, Any]:
    drift = result["drift"]
    return {
        "title": result.title,
        "changed": drift["changed"],
        "samples": [int(count) for count in drift["moved"]],
        "moved": list(drift["moved"].values()),
        "counts": drift["validation_counts"],
    }


def _draw_drift(data: list[dict[str, Any]]) -> Figure:
    columns = min(3, len(data))
    figure, axes = panels(len(data), columns, 3.5, 2.7)
    for axis, panel in zip(axes, data, strict=True):
        axis.set_title(f"{panel['title']}\n{100 * panel['changed']:.1f} % sent to another tier")
        for pool, (name, colour, marker) in enumerate(POOLS):
            moved = [step[pool] for step in panel["moved"]]
            if None not in moved:
                axis.plot(panel["samples"], moved, color=colour, marker=marker, label=name)
        log_axis(axis, panel["samples"])
        axis.set_ylim(0, max(0.1, axis.get_ylim()[1]))
    label_outer(axes, columns, "examples seen", "moved (gaps between centroids)")
    legend(figure, axes)
    return figure


def _shift(result: Result) -> dict[str, Any]:
    return {
        "title": result.title,
        "domains": {
            domain: {
                method: {
                    "accuracy": [row["accuracy"], *row["accuracy_interval"]],
                    "cost": row["cost_change"],
                }
                for method, row in facts["methods"].items()
                if method in SHIFT_ROWS
            }
            for domain, facts in {"films (reported)": result.facts, **result["shift"]}.items()
        },
    }


def _draw_shift(data: list[dict[str, Any]]) -> Figure:
    figure, axes = panels(2 * len(data), 2, 5.0, 3.2)
    for number, panel in enumerate(data):
        left, right = axes[2 * number : 2 * number + 2]
        for position, rows in enumerate(panel["domains"].values()):
            for shift, method in enumerate(SHIFT_ROWS):
                x = position + 0.13 * (shift - 2.5)
                point, low, high = rows[method]["accuracy"]
                style: dict[str, Any] = {"color": COLOURS[method], "marker": MARKERS[method]}
                style["label"] = method
                left.errorbar(x, point, [[point - low], [high - point]], linestyle="", **style)
                right.plot(x, rows[method]["cost"], linestyle="", **style)
        for axis, label in ((left, "accuracy (%)"), (right, COST)):
            axis.set_title(panel["title"])
            axis.set_xticks(range(len(panel["domains"])), list(panel["domains"]))
            axis.set_ylabel(label)
            axis.grid(False, axis="x")
    legend(figure, axes)
    return figure
