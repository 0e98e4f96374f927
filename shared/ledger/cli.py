"""``dimee ledger``: what the ledger says, for people."""

from __future__ import annotations

import json
import sys
import time

import click

from shared.credentials import Credentials
from shared.domain import Side
from shared.ledger.client import LedgerClient
from shared.ledger.entry import LedgerEntry
from shared.ledger.reports import Pruned, Summary, Verification
from shared.ledger.server.maintenance_cli import export_command, import_command, prune_command

POLL_S = 0.1


def reader(url: str) -> LedgerClient:
    """A client that shows what ``DIMEE_TOKEN`` and the like name."""
    return LedgerClient(url, credentials=Credentials.from_environment())


_url_option = click.option(
    "--ledger-url",
    "client",
    envvar="DIMEE_LEDGER_URL",
    default="http://127.0.0.1:8700",
    show_default=True,
    callback=lambda _context, _option, url: reader(url),
    help="Where the ledger listens.",
)


@click.group()
def ledger() -> None:
    """Read the shared ledger, move it to another database, forget what is old."""


ledger.add_command(export_command)
ledger.add_command(import_command)
ledger.add_command(prune_command)


@ledger.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_url_option
def summary(client: LedgerClient, as_json: bool) -> None:
    """Shares, percentiles per hop, bytes, and cost in both books."""
    report = client.summary()
    if as_json:
        click.echo(report.model_dump_json(indent=2))
    else:
        print_summary(report)


@ledger.command()
@click.argument("request_id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_url_option
def show(client: LedgerClient, request_id: str, as_json: bool) -> None:
    """Tell the story of one request: its attempts, both sides of each."""
    entries = client.request(request_id)
    if as_json:
        rows = [entry.model_dump(mode="json", exclude_none=True) for entry in entries]
        click.echo(json.dumps(rows, indent=2))
        return
    click.echo(f"request {request_id}")
    for entry in entries:
        click.echo(_line(entry))


@ledger.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--wait",
    "wait_s",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0, 3600),
    help="Seconds to wait for entries that are still on their way.",
)
@_url_option
def verify(client: LedgerClient, as_json: bool, wait_s: float) -> None:
    """Match both sides of every attempt; exit 0 only if all match and nothing is open."""
    report = wait_for_consistent(client, wait_s)
    if as_json:
        click.echo(report.model_dump_json(indent=2))
    else:
        for finding in report.findings:
            where = f"{finding.attempt_id} {finding.side:<7}"
            click.echo(f"{finding.kind:<20} {where} {finding.detail}")
        hidden = report.total_findings - len(report.findings)
        if hidden:
            click.echo(f"… and {hidden} more")
        click.echo(
            f"{report.requests} requests, {report.caller_rows} attempts by callers, "
            f"{report.tier_rows} by tiers: "
            + ("clean" if report.clean else f"{report.total_findings} findings")
        )
    sys.exit(0 if report.clean else 1)


def wait_for_consistent(client: LedgerClient, wait_s: float, requests: int = 0) -> Verification:
    """Verify until clean with at least ``requests`` of them, or until ``wait_s`` is over.

    Outboxes deliver in their own time: a ledger that has heard of nothing yet is clean as well.
    """
    until = time.monotonic() + wait_s
    report = client.verify()
    while not (report.clean and report.requests >= requests) and time.monotonic() < until:
        time.sleep(POLL_S)
        report = client.verify()
    return report


def print_summary(report: Summary) -> None:
    """The summary as a table of at most 100 columns."""
    if not report.requests:
        click.echo("the ledger is empty; send something first: dimee classify 'a fine film'")
        if report.pruned:
            print_pruned(report.pruned)
        return
    click.echo(
        f"requests {report.requests}   answered {report.answered}   failed {report.failed}   "
        f"failed over {report.failed_over}   escalated {report.escalated}"
        + (f"   degraded {report.degraded}" if report.degraded else "")
    )
    for tier in ("mobile", "edge", "cloud"):
        count = report.answered_by_tier.get(tier, 0)
        exits = report.exits_by_tier.get(tier, {})
        by_exit = ", ".join(f"exit {layer}: {n}" for layer, n in exits.items())
        share = count / max(report.answered, 1)
        click.echo(f"  {tier:<7} {count:>7} {share:>7.1%}   {by_exit}")
    click.echo(f"attempts  {_counts(report.attempts_by_state)}")
    click.echo(f"because   {_counts(report.attempts_by_reason)}")
    click.echo(f"policies  {_counts(report.requests_by_policy)}")
    click.echo(f"{'tier':<8} {'what':<15} {'count':>7} {'p50':>9} {'p95':>9} {'p99':>9}")
    for row in report.durations:
        click.echo(
            f"{row.tier:<8} {row.what:<15} {row.count:>7}"
            f" {row.p50:>9.2f} {row.p95:>9.2f} {row.p99:>9.2f}"
        )
    click.echo(f"bytes     {report.sent_bytes:,} sent, {report.received_bytes:,} received")
    saved = report.cost_lambda / report.all_cloud_lambda - 1 if report.all_cloud_lambda else 0.0
    click.echo(
        f"cost      {report.cost_lambda:,.1f} λ against {report.all_cloud_lambda:,.1f} λ"
        f" all-cloud ({saved:+.1%})"
    )
    click.echo(
        f"          {report.cost_usd:.6f} USD, {report.energy_mj:,.1f} mJ of the mobile"
        f" (price book {', '.join(report.price_books)})"
    )

    if report.audits.attempts:
        print_audits(report)
    if report.pruned:
        print_pruned(report.pruned)


def print_audits(report: Summary) -> None:
    """What audits found, and what they cost beside the answers."""
    audits = report.audits
    click.echo(
        f"audits    {audits.attempts} asked of the cloud, {audits.compared} compared, "
        f"{audits.differ} differ"
    )
    total = report.cost_lambda + audits.cost_lambda
    saved = total / report.all_cloud_lambda - 1 if report.all_cloud_lambda else 0.0
    click.echo(
        f"          {audits.cost_lambda:,.1f} λ, {audits.cost_usd:.6f} USD and "
        f"{audits.sent_bytes + audits.received_bytes:,} bytes, not in the figures above; "
        f"with them {saved:+.1%}"
    )


def print_pruned(pruned: Pruned) -> None:
    """What retention forgot, which is in no other line."""
    day = time.strftime("%Y-%m-%d", time.gmtime(pruned.received_before))
    click.echo(
        f"pruned    {pruned.requests:,} requests ({pruned.entries:,} entries, "
        f"{pruned.cost_lambda:,.1f} λ, {pruned.cost_usd:.6f} USD) of before {day}, not above"
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _line(entry: LedgerEntry) -> str:
    parts = [f"  {entry.ordinal}. {entry.tier.value:<6} {entry.side.value:<6} {entry.state.value}"]
    if entry.side is Side.CALLER:
        why = f"{entry.reason.value} by {entry.policy}" if entry.reason else ""
        parts.append(f"{why}{f' ({entry.difficulty.value})' if entry.difficulty else ''}")
    if entry.degraded:
        parts.append("degraded")
    if entry.error_code:
        parts.append(f"error {entry.error_code}")
    if entry.label is not None:
        parts.append(f"{entry.label} at exit {entry.exit_layer}, {entry.confidence or 0:.1%}")
    for name in ("decision_ms", "queue_ms", "compute_ms", "network_ms", "round_trip_ms"):
        value = getattr(entry, name)
        if value is not None:
            parts.append(f"{name.removesuffix('_ms').replace('_', ' ')} {value:.2f} ms")
    if entry.sent_bytes or entry.received_bytes:
        parts.append(f"{entry.sent_bytes} B sent, {entry.received_bytes} B received")
    if entry.cost_lambda is not None:
        parts.append(f"{entry.cost_lambda:.1f} λ, {entry.cost_usd or 0:.9f} USD")
    return " · ".join(part for part in parts if part)
