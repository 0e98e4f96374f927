"""Every plot in one list, and ``figures.md``, the page that shows them."""

from __future__ import annotations

from lab.results import figures_adaptive, figures_routers, figures_sweeps, figures_tiers
from lab.results.load import Result, one_a_run
from lab.results.style import Plot
from lab.results.text import NOT_RUN


def all_plots(results: list[Result]) -> list[Plot]:
    """What ``results`` allow to be drawn, in the order of the page."""
    chosen = one_a_run(results)
    if not chosen:
        return []
    rooms = (figures_tiers, figures_sweeps, figures_routers, figures_adaptive)
    return [plot for room in rooms for plot in room.plots(chosen)]


def figures_page(plots: list[Plot]) -> str:
    """Headings, pictures and captions."""
    lines = [
        "# Figures",
        "",
        "Made by `make results` from the JSONs in `data/`; the commands of each JSON stand above "
        "its table in [tables.md](tables.md).",
        "A plot shows the paper's split (another tenth of the training file) unless its title says "
        "`glue`.",
    ]
    for plot in plots:
        lines += ["", f"## {plot.title}", "", plot.caption, "",
                  f"![{plot.title}](figures/{plot.name}.svg)"]  # fmt: skip
    if not plots:
        lines += ["", f"{NOT_RUN}."]
    elif not any(plot.name == "shift" for plot in plots):
        lines += ["", "## The adaptive rule under real shift", "", f"{NOT_RUN}."]
    return "\n".join(lines) + "\n"
