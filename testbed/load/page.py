"""A load report as one HTML page that loads nothing else and runs no script."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from shared.terminal import escape_controls
from testbed.load.accuracy import describe_accuracy
from testbed.load.actions import describe_action
from testbed.load.charts import columns_over_time, lines_over_time, stacked_bars
from testbed.load.ledger_check import describe_ledger
from testbed.load.load_run import describe_partial
from testbed.load.report import describe_worst
from testbed.load.sample import ENDINGS, TIERS
from testbed.load.templates import environment


def load_page(report: dict[str, Any]) -> str:
    """Return the page of a report that `make_report` made."""
    html = environment(html=True)
    html.filters["ms"] = lambda value: "–" if value is None else f"{value:,.1f}"
    html.filters["accuracy"] = describe_accuracy
    html.filters["action"] = describe_action
    html.filters["ledger"] = describe_ledger
    html.filters["worst"] = describe_worst
    charts = {name: Markup(svg) for name, svg in _charts(report).items()}
    page = html.get_template("load.html.j2").render(
        report=report, charts=charts, partial=describe_partial(report)
    )
    return escape_controls(page)


def _charts(report: dict[str, Any]) -> dict[str, str]:
    bins, duration_s = report["over_time"], report["duration_s"]
    actions = [
        (row["at_s"], row["name"])
        for row in report["actions"]
        if row.get("after_s") is None or not row["error"]
    ]
    series = {
        percentile: [((row["from_s"] + row["until_s"]) / 2, row[percentile]) for row in bins]
        for percentile in ("p50", "p95", "p99")
    }
    used = {name for row in bins for name in row["endings"]}
    names = [name for name in (*TIERS, *ENDINGS) if name in used]
    columns = [(row["from_s"], row["until_s"], row["endings"]) for row in bins]
    answered = {tier: float(count) for tier, count in report["answered_by"].items() if count}
    cost = report["cost"]
    costs = {"this run": {"λ": cost["lambda"]}, "all in the cloud": {"λ": cost["all_cloud_lambda"]}}
    hops = {f"answered by {tier}": parts for tier, parts in report["hops_ms"].items()}
    return {
        "latency": lines_over_time(series, duration_s, actions, "latency, ms"),
        "endings": columns_over_time(columns, names, duration_s, actions),
        "hops": stacked_bars(hops, "ms"),
        "tiers": stacked_bars({"answered": answered}, "requests"),
        "cost": stacked_bars(costs, "λ"),
    }
