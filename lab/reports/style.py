"""Style of the plots, and reproducible SVG files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = {
    "bert": "#000000", "random": "#999999", "early-exit": "#E69F00", "adaee": "#CC79A7",
    "i-splitee": "#D55E00", "dimee-fixed": "#0072B2", "dimee-adaptive": "#56B4E9",
    "mobile": "#B0A000", "edge": "#009E73", "cloud": "#000000", "random-same-mix": "#999999",
    "length-only": "#AA7744", "nearest-neighbours": "#882255", "true-difficulty": "#117733",
}  # fmt: skip
"""Okabe and Ito's palette, which is safe for colour-blind readers, and three more colours."""

MARKERS = {
    "bert": "*", "random": "x", "early-exit": "^", "adaee": "v", "i-splitee": "D",
    "dimee-fixed": "o", "dimee-adaptive": "s", "mobile": "<", "edge": "P", "cloud": "X",
    "random-same-mix": "+", "length-only": "1", "nearest-neighbours": "h", "true-difficulty": "d",
}  # fmt: skip
DASHED = ("random-same-mix", "length-only", "nearest-neighbours", "true-difficulty")
POOLS = (("easy", "#56B4E9", "o"), ("moderate", "#E69F00", "s"), ("hard", "#000000", "^"))
TASK_COLOURS = {
    "SST-2": "#0072B2", "CoLA": "#D55E00", "MRPC": "#009E73", "QNLI": "#CC79A7", "QQP": "#E69F00",
    "MNLI": "#000000",
}  # fmt: skip
ROUTERS = (
    ("length", "#AA7744"), ("nearest centroid", "#0072B2"), ("nearest neighbours", "#882255"),
    ("logistic regression", "#009E73"),
)  # fmt: skip

SETTINGS: Any = {
    "svg.hashsalt": "dimee", "svg.fonttype": "path", "font.family": "DejaVu Sans",
    "font.size": 9, "axes.titlesize": 10, "axes.grid": True, "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "axes.spines.top": False,
    "axes.spines.right": False, "lines.linewidth": 1.3, "lines.markersize": 4.5,
    "legend.frameon": False, "axes.unicode_minus": True, "path.simplify": False,
}  # fmt: skip
COST = "cost against all-cloud (%)"


@dataclass(frozen=True)
class Plot:
    """A plot that ``draw`` makes from ``data`` alone: the hash of ``data`` identifies it."""

    name: str
    title: str
    caption: str
    data: Any
    draw: Callable[[Any], Figure]

    @property
    def digest(self) -> str:
        """SHA-256 of the data."""
        text = json.dumps(self.data, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def save(self, folder: Path) -> Path:
        """Write ``NAME.svg`` with the hash of its data in the description."""
        file = folder / f"{self.name}.svg"
        metadata = {"Date": None, "Creator": "python -m lab.reports", "Title": self.title,
                    "Description": f"data sha256 {self.digest}"}  # fmt: skip
        with plot_style():
            figure = self.draw(self.data)
            figure.suptitle(self.title, fontsize=11)
            figure.savefig(file, format="svg", metadata=metadata)
        return file


@contextmanager
def plot_style() -> Iterator[None]:
    """Use matplotlib's defaults and `SETTINGS` instead of the user's configuration."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def panels(
    count: int, columns: int, width: float = 3.6, height: float = 2.8, **options: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``count`` axes in rows of ``columns``."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows + 0.5), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **options)
    axes = [axis for row in grid for axis in row]
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, axes[:count]


def legend(figure: Figure, axes: list[Axes], columns: int = 5, scale: float = 1.0) -> None:
    """Add one legend below all panels, each label once, with marks ``scale`` times as large."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=columns,
        markerscale=scale,
    )  # fmt: skip


def label_outer(axes: list[Axes], columns: int, x_label: str, y_label: str) -> None:
    """Set the x-label below each column and the y-label at each row."""
    for number, axis in enumerate(axes):
        if number + columns >= len(axes):
            axis.set_xlabel(x_label)
        if number % columns == 0:
            axis.set_ylabel(y_label)


def line(method: str) -> dict[str, Any]:
    """Return colour, marker and stroke of a method's line."""
    own = method.startswith("dimee")
    return {
        "color": COLOURS[method], "marker": MARKERS[method], "label": method,
        "linestyle": "--" if method in DASHED else "-", "linewidth": 2.0 if own else 1.1,
        "zorder": 3 if own else 2,
    }  # fmt: skip
