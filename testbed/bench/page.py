"""Page of the benchmark's figures, in Markdown."""

from __future__ import annotations

import statistics
from typing import Any

from testbed.load.templates import environment

OURS = ("dimee", "dimee fp32")


def bench_page(report: dict[str, Any], name: str) -> str:
    """Return a page of every part in ``report``; ``name`` is that of its files."""
    markdown = environment("testbed.bench.templates")
    markdown.filters["whole"] = lambda value: f"{value or 0.0:.0f}"
    template = markdown.get_template("bench.md.j2")
    servers = report.get("servers", {}).get("found", {})
    rates = {
        name: [run["64"]["rps"] for run in figures["runs"]] for name, figures in servers.items()
    }
    return template.render(report=report, name=name, rates=rates, ratios=_ratios(rates))


def _ratios(rates: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return median ratios of our rate at 64 to that of each other server, run by run."""
    medians: dict[str, dict[str, float]] = {}
    for ours in OURS:
        for name, theirs in rates.items():
            pairs = zip(rates.get(ours, ()), theirs, strict=False)
            ratios = [our_rate / their_rate for our_rate, their_rate in pairs if their_rate]
            if ratios and name not in OURS:
                medians.setdefault(ours, {})[name] = statistics.median(ratios)
    return medians
