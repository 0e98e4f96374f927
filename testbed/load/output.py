"""Files and lines that ``dimee load`` writes at the end of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from shared.errors import DimeeError
from shared.files import prepare_output
from shared.ledger.summary_text import displaced_line
from shared.terminal import one_line
from testbed.load.accuracy import accuracy_lines
from testbed.load.actions import describe_action
from testbed.load.compare import compare, lines
from testbed.load.ledger_check import describe_ledger
from testbed.load.load_run import describe_partial
from testbed.load.report import describe_worst

PRINTED_WORST = 3


def report_files(out: Path) -> tuple[Path, Path]:
    """Return the JSON file and the page of a report."""
    return out.with_name(out.name + ".json"), out.with_name(out.name + ".html")


def write_report(out: Path, report: dict[str, Any]) -> None:
    """Write the report and print its main figures; raise `DimeeError` if nothing was answered."""
    # needs the extra testbed, without which dimee --help must work
    from testbed.load.page import load_page

    if partial := describe_partial(report):
        click.echo(partial)
    files = report_files(out)
    files[0].write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    files[1].write_text(load_page(report), encoding="utf-8")
    latency = report["latency_ms"] or {}
    percentiles = " / ".join(f"{latency[p]:.1f}" for p in ("p50", "p95", "p99")) if latency else "–"
    endings = ", ".join(f"{name} {count:,}" for name, count in report["endings"].items())
    click.echo(displaced_line(report["not_from_chosen_tier"], report["answered"]))
    click.echo(f"answered {report['answered_share']:.2%} of {report['requests']:,}: {endings}")
    click.echo(f"latency p50 / p95 / p99: {percentiles} ms from the intended time")
    if report["accuracy"] is not None:
        click.echo("\n".join(accuracy_lines(report)))
    for one in report["worst"][:PRINTED_WORST]:
        click.echo(f"slowest: {describe_worst(one)}")
    for action in report["actions"]:
        click.echo(describe_action(action))
    click.echo(f"ledger verify: {describe_ledger(report)}")
    click.echo(f"written: {files[0]} and {files[1]}")
    if not report["endings"].get("answered") and not partial:
        raise DimeeError(
            f"load: none of {report['requests']:,} requests was answered ({endings}; errors: "
            f"{', '.join(report['error_codes']) or 'none'})"
        )


def write_comparison(out: Path, first: Path, second: Path) -> None:
    """Print the comparison of two report files, and write it as a page to ``out``.html."""
    # needs the extra testbed, without which dimee --help must work
    from testbed.load.compare_page import compare_page

    page = report_files(out)[1]
    prepare_output(page, "out")
    comparison = compare(first, second)
    page.write_text(compare_page(comparison), encoding="utf-8")
    for line in lines(comparison):
        click.echo(one_line(line))
    click.echo(f"written: {page}")
