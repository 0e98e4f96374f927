"""Figure 2: each tier alone and DIMEE on every task (a, b), and the pools on a plane (c)."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from lab.reports.load import TIERS, Result
from lab.reports.style import COLOURS, MARKERS, POOLS, Plot, label_outer, legend, panels

SHOWN = (*TIERS, "dimee-fixed", "dimee-adaptive")


def plots(results: list[Result]) -> list[Plot]:
    """Return Figures 2a, 2b and 2c; ``results`` holds each run once."""
    encoders = dict.fromkeys(result.encoder_title for result in results)
    alone = [
        {"title": encoder, "tasks": [_tiers(r) for r in results if r.encoder_title == encoder]}
        for encoder in encoders
    ]
    maps = [
        {"title": f"{r.title} (α = {r['alpha']:.3g})", **r["map"]} for r in results
        if r["map"]["points"]
    ]  # fmt: skip
    figures = [
        Plot(
            "fig2a-tier-accuracy",
            "Figure 2a: accuracy of each tier alone and of DIMEE",
            "Every text answered by one tier, and by DIMEE, with 95 % intervals. The grey line is "
            "the share of the most frequent class.",
            alone,
            _draw_accuracy,
        ),
        Plot(
            "fig2b-tier-cost",
            "Figure 2b: cost saved by each tier alone and by DIMEE",
            "Percent saved against the cloud, as in the paper. Mobile and edge stop at their first "
            "exit with confidence ≥ α.",
            alone,
            _draw_cost,
        ),
    ]
    if maps:
        figures.append(
            Plot(
                "fig2c-pools",
                "Figure 2c: the three pools of the validation part",
                "t-SNE of the mean word embeddings, at most 600 examples a run, coloured by the "
                "pool that Algorithm 1 puts them in. The router sees only these embeddings: where "
                "the colours mix, centroids cannot distinguish the pools.",
                maps,
                _draw_pools,
            )
        )
    return figures


def _tiers(result: Result) -> dict[str, Any]:
    rows = {name: result.method(name) for name in SHOWN}
    return {
        "task": result.task_title + (" (glue)" if result.on == "glue" else ""),
        "majority": result["majority"],
        "accuracy": {n: [row["accuracy"], *row["accuracy_interval"]] for n, row in rows.items()},
        "saved": {name: -row["cost_change"] for name, row in rows.items() if name != "cloud"},
    }


def _sized(data: list[dict[str, Any]]) -> tuple[Figure, list[Any]]:
    widths = [max(len(panel["tasks"]), 2) for panel in data]
    figure = Figure(figsize=(1.5 * sum(widths), 3.4), layout="constrained")
    grid = figure.subplots(1, len(data), squeeze=False, sharey=True, width_ratios=widths)
    for axis, panel in zip(grid[0], data, strict=True):
        axis.set_title(panel["title"])
        axis.set_xticks(range(len(panel["tasks"])), [task["task"] for task in panel["tasks"]])
        axis.grid(False, axis="x")
    return figure, list(grid[0])


def _draw_accuracy(data: list[dict[str, Any]]) -> Figure:
    figure, axes = _sized(data)
    for axis, panel in zip(axes, data, strict=True):
        for position, task in enumerate(panel["tasks"]):
            axis.hlines(task["majority"], position - 0.4, position + 0.4, color="#999999",
                        label="most frequent class")  # fmt: skip
            for shift, name in enumerate(SHOWN):
                point, low, high = task["accuracy"][name]
                axis.errorbar(
                    position + 0.16 * (shift - 2), point, [[point - low], [high - point]],
                    color=COLOURS[name], marker=MARKERS[name], linestyle="", label=name,
                    markersize=5,
                )  # fmt: skip
    axes[0].set_ylabel("accuracy (%)")
    legend(figure, axes, 6)
    return figure


def _draw_cost(data: list[dict[str, Any]]) -> Figure:
    figure, axes = _sized(data)
    names = [name for name in SHOWN if name != "cloud"]
    for axis, panel in zip(axes, data, strict=True):
        for shift, name in enumerate(names):
            positions = [position + 0.2 * (shift - 1.5) for position in range(len(panel["tasks"]))]
            bars = axis.bar(positions, [task["saved"][name] for task in panel["tasks"]], 0.19,
                            color=COLOURS[name], label=name)  # fmt: skip
            axis.bar_label(bars, fmt="%.0f", fontsize=6)
    axes[0].set_ylabel("saved against the cloud (%)")
    legend(figure, axes)
    return figure


def _draw_pools(data: list[dict[str, Any]]) -> Figure:
    columns = min(3, len(data))
    figure, axes = panels(len(data), columns, 3.2, 3.0)
    for axis, panel in zip(axes, data, strict=True):
        axis.set_title(panel["title"])
        axis.grid(False)
        axis.set_xticks([])
        axis.set_yticks([])
        for pool, (name, colour, marker) in enumerate(POOLS):
            points = zip(panel["points"], panel["pools"], strict=True)
            members = [point for point, point_pool in points if point_pool == pool]
            axis.plot(
                [x for x, _ in members], [y for _, y in members], marker, color=colour,
                markersize=2.4, alpha=0.7, markeredgewidth=0, label=name,
            )  # fmt: skip
    label_outer(axes, columns, "t-SNE 1 (no unit)", "t-SNE 2 (no unit)")
    legend(figure, axes, scale=3)
    return figure
