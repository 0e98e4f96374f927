"""Plots of the sweeps over the four prices (Figure 3), γ and α."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.reports.load import Result
from lab.reports.sensitivity import cost_at_fee
from lab.reports.style import (
    COLOURS,
    COST,
    TASK_COLOURS,
    Plot,
    label_outer,
    legend,
    line,
    panels,
)

SWEPT = (
    "bert", "random", "early-exit", "adaee", "i-splitee", "edge", "dimee-adaptive", "dimee-fixed",
)  # fmt: skip
PRICES = {
    "mobile_layer": "λm, a layer on the mobile (λ)",
    "edge_layer": "λe, a layer on the edge (λ)",
    "offload_edge": "oe, an offload to the edge (λ)",
    "offload_cloud": "oc, an offload to the cloud (λ)",
}


def plots(results: list[Result]) -> list[Plot]:
    """Return Figure 3 for each run, the sweep over γ and the one over α."""
    figures = [
        Plot(
            f"fig3-{result.task}-{result.encoder}",
            f"Figure 3: cost and accuracy as one price varies, {result.title}",
            "Each price alone from a quarter to four times its value in section IV-D (dotted), "
            "with refitted α, pools and centroids. Lines that leave the frame cost more than twice "
            "all-cloud.",
            _prices(result),
            _draw_prices,
        )
        for result in results
    ]
    figures.append(
        Plot(
            "gamma",
            "Cost of every method over γ, which has no value in the paper",
            "Below the black line a method is cheaper than all-cloud. Solid: with "
            "α, pools and centroids refitted at each γ. Dotted: dimee-fixed with the decisions of "
            "the preset's γ.",
            [_gamma(result) for result in results],
            _draw_gamma,
        )
    )
    figures.append(
        Plot(
            "alpha",
            "Accuracy and cost of dimee-fixed over α",
            "Pools and centroids are refitted at each α, with constant prices; the ringed point is "
            "the α nearest to the one that the expected reward chose.",
            _alphas(results),
            _draw_alpha,
        )
    )
    return figures


def _prices(result: Result) -> dict[str, Any]:
    sweep = result["by_price"]
    return {
        "title": result.title,
        "prices": {
            price: {
                "preset": result["cost_model"][price],
                "methods": {
                    method: [
                        [
                            round(float(factor) * result["cost_model"][price], 6),
                            point["methods"][method]["cost_change"],
                            point["methods"][method]["accuracy"],
                        ]
                        for factor, point in sweep[price].items()
                    ]
                    for method in SWEPT
                },
            }
            for price in PRICES
        },
    }


def _draw_prices(data: dict[str, Any]) -> Figure:
    figure, axes = panels(8, 4, 2.9, 2.5, sharex="col", sharey="row")
    for column, (price, label) in enumerate(PRICES.items()):
        swept = data["prices"][price]
        above, below = axes[column], axes[4 + column]
        for method, points in swept["methods"].items():
            x, cost, accuracy = zip(*points, strict=True)
            above.plot(x, cost, **line(method))
            below.plot(x, accuracy, **line(method))
        above.axhline(0, color="black", linewidth=0.8)
        above.set_ylim(-100, 100)
        for axis in (above, below):
            axis.axvline(swept["preset"], color="#777777", linestyle=":", linewidth=1)
            log_axis(axis, [point[0] for point in swept["methods"]["dimee-fixed"]])
        below.set_xlabel(label)
    axes[0].set_ylabel(COST)
    axes[4].set_ylabel("accuracy (%)")
    legend(figure, axes, 8)
    return figure


def log_axis(axis: Axes, ticks: list[float]) -> None:
    """Set a logarithmic x-axis with these ticks, without those that would overlap the next one."""
    ticks = [t for t, after in zip(ticks, [*ticks[1:], None], strict=True)
             if after is None or after > 1.21 * t]  # fmt: skip
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{tick:,.6g}" for tick in ticks])
    axis.set_xticks([], minor=True)


def _gamma(result: Result) -> dict[str, Any]:
    sweep = result["by_cloud_fee"]
    return {
        "title": result.title,
        "preset": result["cost_model"]["cloud_fee"],
        "gammas": [float(fee) for fee in sweep],
        "methods": {
            method: [point["methods"][method]["cost_change"] for point in sweep.values()]
            for method in SWEPT
        },
        "kept": [round(cost_at_fee(result, float(fee)), 2) for fee in sweep],
    }


def _draw_gamma(data: list[dict[str, Any]]) -> Figure:
    columns = min(3, len(data))
    figure, axes = panels(len(data), columns, sharey=True)
    for axis, panel in zip(axes, data, strict=True):
        axis.set_title(panel["title"])
        for method, costs in panel["methods"].items():
            axis.plot(panel["gammas"], costs, **line(method))
        axis.plot(panel["gammas"], panel["kept"], color=COLOURS["dimee-fixed"], linestyle=":",
                  linewidth=2, label="dimee-fixed, unchanged decisions")  # fmt: skip
        axis.axhline(0, color="black", linewidth=1)
        axis.axvline(panel["preset"], color="#777777", linestyle=":", linewidth=1)
        axis.text(panel["preset"], 150, f" preset\n γ = {panel['preset']:g}", va="top", fontsize=7)
        log_axis(axis, panel["gammas"])
        axis.set_ylim(-100, 150)
    label_outer(axes, columns, "γ, the cloud fee (λ)", COST)
    legend(figure, axes, 5)
    return figure


def _alphas(results: list[Result]) -> list[dict[str, Any]]:
    encoders = []
    for encoder in dict.fromkeys(result.encoder_title for result in results):
        tasks = {}
        for result in (r for r in results if r.encoder_title == encoder):
            points = []
            for alpha, point in result["by_alpha"].items():
                row = point["methods"]["dimee-fixed"]
                points.append([float(alpha), row["against_cloud"], row["cost_change"]])
            nearest = min(points, key=lambda point: abs(point[0] - result["alpha"]))
            tasks[result.task_title] = {"points": points, "chosen": points.index(nearest)}
        encoders.append({"title": encoder, "tasks": tasks})
    return encoders


def _draw_alpha(data: list[dict[str, Any]]) -> Figure:
    figure, axes = panels(2 * len(data), 2, 4.6, 2.8)
    for number, panel in enumerate(data):
        for part, label in ((1, "accuracy against all-cloud (points)"), (2, COST)):
            axis = axes[2 * number + part - 1]
            for task, swept in panel["tasks"].items():
                colour = TASK_COLOURS.get(task, "#777777")
                x = [point[0] for point in swept["points"]]
                y = [point[part] for point in swept["points"]]
                axis.plot(x, y, color=colour, marker=".", label=task)
                ringed = swept["chosen"]
                axis.plot(x[ringed], y[ringed], "o", color=colour, markersize=9, fillstyle="none")
            axis.axhline(0, color="black", linewidth=0.8)
            axis.set_title(panel["title"])
            axis.set_xlabel("α, the exit threshold (confidence)")
            axis.set_ylabel(label)
    legend(figure, axes)
    return figure
