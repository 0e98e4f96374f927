"""Every plot of the results."""

from __future__ import annotations

from lab.reports import figures_adaptive, figures_routers, figures_sweeps, figures_tiers
from lab.reports.load import Result, one_per_run
from lab.reports.style import Plot

MODULES = (figures_tiers, figures_sweeps, figures_routers, figures_adaptive)


def all_plots(results: list[Result]) -> list[Plot]:
    """Return the plots that ``results`` allow, in the order of the page."""
    once = one_per_run(results)
    return [plot for module in MODULES for plot in module.plots(once)] if once else []
