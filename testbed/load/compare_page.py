"""The comparison of two load reports as one HTML page."""

from __future__ import annotations

from markupsafe import Markup

from shared.terminal import escape_controls
from testbed.load.charts import COLOURS, lines_over_time, stacked_bars
from testbed.load.compare import Comparison
from testbed.load.templates import environment

CHARTED = ("p50", "p99")


def compare_page(comparison: Comparison) -> str:
    """Return the page, which loads nothing else and runs no script."""
    charts = {name: Markup(svg) for name, svg in _charts(comparison).items()}
    template = environment(html=True).get_template("compare.html.j2")
    return escape_controls(template.render(comparison=comparison, charts=charts))


def _charts(comparison: Comparison) -> dict[str, str]:
    both = list(zip(comparison.names, comparison.runs, strict=True))
    duration_s = max(max(run.duration_s for run in comparison.runs), 1e-3)
    series = {
        f"{name}, {percentile}": [
            ((part.from_s + part.until_s) / 2, getattr(part, percentile)) for part in run.over_time
        ]
        for percentile in CHARTED
        for name, run in both
    }
    styles = {
        f"{name}, {percentile}": (COLOURS[percentile], line)
        for percentile in CHARTED
        for name, line in zip(comparison.names, ("-", "--"), strict=True)
    }
    hops = {
        f"{tier}: {name}": run.hops_ms[tier]
        for tier in ("mobile", "edge", "cloud")
        for name, run in both
        if tier in run.hops_ms
    }
    tiers = {
        name: {tier: 100.0 * count / run.answered for tier, count in run.answered_by.items()}
        for name, run in both
        if run.answered
    }
    return {
        "latency": lines_over_time(series, duration_s, (), "latency, ms", styles),
        "hops": stacked_bars(hops, "ms") if hops else "",
        "tiers": stacked_bars(tiers, "%") if tiers else "",
    }
