"""The page of a fleet's report, which loads nothing else and runs no script."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from shared.terminal import escape_controls
from testbed.load.charts import distributions, stacked_bars
from testbed.load.fleet.report import shown_index
from testbed.load.ledger_check import describe_ledger
from testbed.load.sample import TIERS
from testbed.load.templates import environment


def fleet_page(report: dict[str, Any]) -> str:
    """Return the page of a report that `fleet_report` made."""
    html = environment(html=True)
    html.filters["ms"] = lambda value: "–" if value is None else f"{value:,.1f}"
    html.filters["index"] = shown_index
    html.filters["ledger"] = describe_ledger
    charts = {name: Markup(svg) for name, svg in _charts(report).items()}
    page = html.get_template("fleet.html.j2").render(report=report, charts=charts)
    return escape_controls(page)


def _charts(report: dict[str, Any]) -> dict[str, str]:
    classes = report["classes"]
    tiers = {
        name: {tier: float(one["answered_by"][tier]) for tier in TIERS if one["answered_by"][tier]}
        for name, one in classes.items()
    }
    tails = {
        name: [
            (share, one["latency_ms"][share])
            for share in ("p50", "p90", "p95", "p99", "max")
        ]
        for name, one in classes.items()
        if one["latency_ms"]
    }  # fmt: skip
    costs = {
        name: [row["cost_lambda"] for row in report["by_device"] if row["class"] == name]
        for name in classes
    }
    means = {
        name: [
            row["latency_ms_mean"]
            for row in report["by_device"]
            if row["class"] == name and row["latency_ms_mean"] is not None
        ]
        for name in classes
    }
    return {
        "tiers": stacked_bars(tiers, "requests"),
        "costs": distributions(costs, "λ in the whole run, one value a device"),
        "means": distributions(means, "mean latency of a device, ms", log=True),
        "tails": distributions({name: [ms for _, ms in row] for name, row in tails.items()},
                               "p50, p90, p95, p99 and maximum of the class, ms", log=True,
                               marks=True),
    }  # fmt: skip
