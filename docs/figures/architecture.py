"""Draw docs/figures/architecture.svg: ``python docs/figures/architecture.py``."""

from __future__ import annotations

from math import atan2, degrees
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

BLUE, GREEN, ORANGE = "#dbe9f6", "#e2f0d9", "#fdebd3"
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "dimee", "font.size": 9}
WIDTH, HEIGHT = 120, 74


def box(
    axes: Axes, x: float, y: float, width: float, height: float, colour: str, title: str
) -> None:
    """Draw a container with its title at the top left."""
    style = "round,pad=0,rounding_size=1"
    axes.add_patch(FancyBboxPatch((x, y), width, height, style, facecolor=colour, edgecolor="#888"))
    axes.text(x + 1.2, y + height - 3, title, weight="bold", fontsize=10)


def step(axes: Axes, x: float, y: float, width: float, text: str, file: str) -> None:
    """Draw one step of the request with the file that does it."""
    style = "round,pad=0,rounding_size=0.6"
    axes.add_patch(FancyBboxPatch((x, y), width, 6, style, facecolor="white", edgecolor="#555"))
    axes.text(x + 1, y + 3.6, text)
    axes.text(x + 1, y + 1.1, file, family="monospace", fontsize=7, color="#444")


def arrow(
    axes: Axes,
    points: tuple[float, float, float, float],
    text: str = "",
    dashed: bool = False,
    drop: float = 0.0,
) -> None:
    """Draw an arrow from the first point to the second, with a label beside its middle."""
    x0, y0, x1, y1 = points
    line = "--" if dashed else "-"
    axes.add_patch(
        FancyArrowPatch(
            (x0, y0), (x1, y1), arrowstyle="-|>", mutation_scale=10, color="#333", linestyle=line
        )
    )
    if text:
        angle = degrees(atan2(y1 - y0, (x1 - x0)))
        middle = ((x0 + x1) / 2, (y0 + y1) / 2 + 1 - drop)
        axes.text(*middle, text, ha="center", fontsize=8, rotation=angle)


def draw() -> Figure:
    """Return the picture: the three tiers, the path of one text, and the ledger."""
    figure = Figure(figsize=(12, 7.4))
    axes = figure.add_subplot()
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.axis("off")

    box(axes, 1, 18, 50, 55, BLUE, "mobile · mobile_client/ · layers 1..m")
    steps = (
        ("1  check options and input", "client.py, options.py, service.py"),
        ("2  tokenize, mean word embedding, policy", "local/runtime.py, shared/policies/"),
        ("3  next: attempt, retry, escalate, fail over", "dispatch/runner.py, request_state.py"),
        ("4a  answer on the device: layers 1..m", "local/runtime.py, shared/inference/"),
        (
            "4b  or call edge or cloud; hedge, time out",
            "dispatch/tier_caller.py, shared/tier_client.py",
        ),
    )
    for number, (text, file) in enumerate(steps):
        inset = 0 if number < 3 else 7
        step(axes, 4 + inset, 62 - 8.6 * number, 44 - inset, text, file)
        if number < 2:
            arrow(axes, (26, 62 - 8.6 * number, 26, 59.4 - 8.6 * number))
    step(axes, 11, 19.2, 37, "record each attempt, before and after", "dispatch/attempts.py")
    axes.plot((7, 7), (44.8, 22.2), color="#333", linewidth=1)
    for height in (39.2, 30.6, 22.2):
        arrow(axes, (7, height, 11, height))

    box(axes, 72, 46, 47, 27, GREEN, "edge · edge_server/ · layers 1..n")
    served = (
        ("5  authenticate, parse", "shared/serving/, tier_server/infer_endpoint.py"),
        ("6  admit or refuse, queue, batch", "tier_server/service.py, admission.py, engine.py"),
        ("7  run the layers in worker processes", "shared/inference/process_batcher.py"),
    )
    for number, (text, file) in enumerate(served):
        step(axes, 74, 61.6 - 7 * number, 43, text, file)
    box(axes, 72, 31, 47, 12, GREEN, "cloud · cloud_server/ · layers 1..l")
    axes.text(74, 36.6, "the same code as the edge:", fontsize=8)
    where = "shared/serving/, shared/tier_server/, shared/inference/"
    axes.text(74, 33.4, where, family="monospace", fontsize=7, color="#444")
    arrow(axes, (48, 32, 72, 56), "POST /v1/infer")
    arrow(axes, (48, 29.6, 72, 37), "POST /v1/infer", drop=4.6)

    step(
        axes, 74, 21.4, 43, "outbox on disk, one each for edge and cloud", "shared/ledger/outbox.py"
    )
    arrow(axes, (95, 31, 95, 27.4), dashed=True)
    box(axes, 72, 1, 47, 15, ORANGE, "ledger · shared/ledger/server/")
    axes.text(74, 8.6, "two entries for each attempt: caller and tier", fontsize=8.5)
    axes.text(74, 5.4, "SQLite or PostgreSQL; verify, summary, export, prune", fontsize=8)
    arrow(axes, (95, 21.4, 95, 16), dashed=True)
    axes.text(97, 18, "shared/ledger/shipper.py", family="monospace", fontsize=7)
    step(axes, 11, 7, 37, "outbox on disk", "shared/ledger/outbox.py")
    arrow(axes, (29, 19.2, 29, 13), dashed=True)
    arrow(axes, (48, 10, 72, 10), dashed=True)
    axes.text(60, 11, "shared/ledger/shipper.py", family="monospace", fontsize=7, ha="center")
    return figure


if __name__ == "__main__":
    target = Path(__file__).with_suffix(".svg")
    with matplotlib.rc_context(STYLE):
        draw().savefig(target, bbox_inches="tight", metadata={"Date": None})
    text = "\n".join(line.rstrip() for line in target.read_text(encoding="utf-8").splitlines())
    target.write_text(text + "\n", encoding="utf-8")
