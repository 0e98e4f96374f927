"""Charts of a load report, as SVG elements for an HTML page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

COLOURS = {
    "mobile": "#2a9d8f",
    "edge": "#e9a23b",
    "cloud": "#3d6fb4",
    "shed": "#b5179e",
    "timed_out": "#d62828",
    "unavailable": "#8d5a4a",
    "refused": "#777777",
    "failed": "#5c0a0a",
    "no_answer": "#000000",
    "p50": "#2a9d8f",
    "p95": "#e9a23b",
    "p99": "#d62828",
    "decision": "#6a4c93",
    "mobile queue": "#9ad8cf",
    "mobile compute": "#2a9d8f",
    "mobile (other)": "#14524a",
    "edge network": "#f6d29a",
    "edge queue": "#e9a23b",
    "edge compute": "#a8701a",
    "cloud network": "#a9c1e3",
    "cloud queue": "#6a94cf",
    "cloud compute": "#3d6fb4",
    "failed attempts": "#d62828",
    "client to gateway": "#bbbbbb",
    "sent late": "#000000",
}
OTHER_COLOUR = "#777777"
_MARKS = ("#2a9d8f", "#6a994e", "#e9a23b", "#d62828", "#000000")
WIDTH_IN = 9.0
_STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "dimee", "font.size": 9}

Actions = Sequence[tuple[float, str]]
"""Time in seconds and name of each action on the testbed."""


def lines_over_time(
    series: Mapping[str, Sequence[tuple[float, float | None]]],
    duration_s: float,
    actions: Actions,
    y_label: str,
    styles: Mapping[str, tuple[str, str]] | None = None,
) -> str:
    """Draw lines over time on a logarithmic axis; None leaves a gap.

    ``styles`` are colour and line style of a name, in place of its colour in `COLOURS`.
    """
    figure, axes = _figure(3.2)
    for name in series:
        x = [at for at, _ in series[name]]
        y = [float("nan") if value is None else value for _, value in series[name]]
        colour, line = (styles or {}).get(name, (_colour(name), "-"))
        marker = "." if len(x) < 3 else None
        axes.plot(x, y, color=colour, linestyle=line, label=name, marker=marker)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    axes.grid(axis="y", alpha=0.3)
    _finish_time_axis(axes, duration_s, actions)
    axes.set_ylabel(y_label)
    return _svg(figure, axes)


def columns_over_time(
    columns: Sequence[tuple[float, float, Mapping[str, int]]],
    names: Sequence[str],
    duration_s: float,
    actions: Actions,
) -> str:
    """Draw stacked columns of requests a second; a column is (from, until, counts by name)."""
    figure, axes = _figure(2.8)
    starts = [start for start, _, _ in columns]
    widths = [until - start for start, until, _ in columns]
    bottoms = [0.0] * len(columns)
    for name in names:
        rates = [
            counts.get(name, 0) / width
            for (_, _, counts), width in zip(columns, widths, strict=True)
        ]
        axes.bar(
            starts, rates, widths, bottom=bottoms, align="edge", color=_colour(name),
            label=name.replace("_", " "), edgecolor="white", linewidth=0.5,
        )  # fmt: skip
        bottoms = [bottom + rate for bottom, rate in zip(bottoms, rates, strict=True)]
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    _finish_time_axis(axes, duration_s, actions)
    axes.set_ylabel("requests/s")
    return _svg(figure, axes)


def stacked_bars(bars: Mapping[str, Mapping[str, float]], unit: str) -> str:
    """Draw horizontal bars of parts; the sum of a bar is written at its end."""
    figure, axes = _figure(0.9 + 0.4 * len(bars))
    names = list(dict.fromkeys(name for parts in bars.values() for name in parts))
    labels = list(bars)
    lefts = [0.0] * len(bars)
    for name in names:
        values = [parts.get(name, 0.0) for parts in bars.values()]
        axes.barh(labels, values, left=lefts, color=_colour(name), label=name)
        lefts = [left + value for left, value in zip(lefts, values, strict=True)]
    for row, total in enumerate(lefts):
        axes.text(total, row, f" {total:,.1f} {unit}", va="center")
    axes.set_xlim(0, 1.15 * max([*lefts, 1e-9]))
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    return _svg(figure, axes)


def _colour(name: str) -> str:
    return COLOURS.get(name, OTHER_COLOUR)


def _figure(height_in: float) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _finish_time_axis(axes: Axes, duration_s: float, actions: Actions) -> None:
    axes.set_xlim(0, duration_s)
    axes.set_xlabel("intended send time, s")
    height = axes.get_xaxis_transform()
    for number, (at_s, name) in enumerate(actions):
        axes.axvline(
            at_s, color="#444444", linestyle="--", linewidth=1,
            label="action on the testbed" if number == 0 else None,
        )  # fmt: skip
        text = axes.text(
            at_s, 0.97 - 0.08 * (number % 3), f" {name}", transform=height, va="top", fontsize=8
        )
        text.set_parse_math(False)


def _svg(figure: Figure, axes: Axes) -> str:
    """Return the figure as one SVG element, with the legend of its marks below."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    file = io.StringIO()
    metadata: dict[str, Any] = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(_STYLE):
        figure.savefig(file, format="svg", metadata=metadata)
    return file.getvalue()[file.getvalue().index("<svg") :]


def distributions(
    values: Mapping[str, Sequence[float]], x_label: str, log: bool = False, marks: bool = False
) -> str:
    """Draw a row for each name: a box from the first to the third quartile with its median.

    The whiskers end at the 5th and 95th percentile; points are the values beyond. With ``marks``
    each value is drawn as a mark on a line instead, for a few values such as percentiles.
    """
    figure, axes = _figure(0.9 + 0.45 * max(1, len(values)))
    names = [name for name, row in values.items() if row]
    if marks:
        for place, name in enumerate(names, start=1):
            row = values[name]
            axes.plot(row, [place] * len(row), color=OTHER_COLOUR, linewidth=1)
            axes.scatter(row, [place] * len(row), color=list(_MARKS[: len(row)]), zorder=3)
    elif names:
        axes.boxplot(
            [list(values[name]) for name in names],
            orientation="horizontal",
            whis=(5, 95),
            widths=0.6,
            flierprops={"marker": ".", "markersize": 3, "markeredgecolor": OTHER_COLOUR},
            medianprops={"color": COLOURS["p99"]},
        )
    axes.set_yticks(range(1, len(names) + 1), names)
    axes.set_ylim(len(names) + 0.6, 0.4)
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(LogFormatter())
        axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.5)))
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel(x_label)
    return _svg(figure, axes)
