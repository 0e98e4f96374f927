"""Every plot in one list, and ``figures.md``, the page that shows them beside the paper's text."""

from __future__ import annotations

from lab.reports import (
    figures_adaptive,
    figures_routers,
    figures_sweeps,
    figures_tiers,
    findings,
    paper,
)
from lab.reports.load import Result, one_a_run
from lab.reports.style import Plot
from lab.reports.text import NOT_RUN


def all_plots(results: list[Result]) -> list[Plot]:
    """What ``results`` allow to be drawn, in the order of the page."""
    chosen = one_a_run(results)
    if not chosen:
        return []
    modules = (figures_tiers, figures_sweeps, figures_routers, figures_adaptive)
    return [plot for module in modules for plot in module.plots(chosen)]


HEAD = (
    "# Figures",
    "",
    "This page shows Figures 2a, 2b, 2c and 3 beside what the paper's text says of its own, then "
    "the sweeps over γ and α, the ablation of m and n, routers and the adaptive rule. "
    "`python -m lab.reports` drew it from the JSONs in `data/` ([commands](data.md#the-commands)). "
    "A plot shows the paper's test tenth unless its title says `glue`.",
)


def figures_page(results: list[Result], plots: list[Plot]) -> str:
    """The paper's statements beside our findings; then headings, captions and pictures."""
    lines = [*HEAD, "", "## Beside the paper", ""]
    for figure, says in paper.FIGURES.items():
        lines += [f"**Figure {figure}.**", "", f"- The paper: {says}"]
        lines += [f"- Ours, {text}" for text in findings.of_figure(figure, one_a_run(results))]
        lines += [""]
    for plot in plots:
        lines += [f"## {plot.title}", "", plot.caption, "",
                  f"![{plot.title}](figures/{plot.name}.svg)", ""]  # fmt: skip
    if not plots:
        lines += [f"{NOT_RUN}.", ""]
    return "\n".join(lines).rstrip() + "\n"
