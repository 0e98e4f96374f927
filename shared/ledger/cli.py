"""``dimee ledger``: print a summary, print a request, verify the ledger."""

from __future__ import annotations

import json
import sys
import time
from datetime import date, datetime
from typing import Any

import click

from shared.ages import parse_age
from shared.credentials import Credentials
from shared.domain import Reason, Side, State, Tier
from shared.ledger.client import LedgerClient
from shared.ledger.entry import LedgerEntry
from shared.ledger.reports import Pruned, Summary, Verification
from shared.ledger.request_list import MAX_REQUESTS
from shared.ledger.request_table import lines
from shared.ledger.server.maintenance_cli import export_command, import_command, prune_command
from shared.terminal import one_line

POLL_INTERVAL_S = 0.1
LONGEST_FIGURE = 1e12
_ENDED = [state.value for state in State if state is not State.OPEN]


def ledger_client(url: str) -> LedgerClient:
    """Return a client with the credentials of the environment (``DIMEE_TOKEN`` and others)."""
    return LedgerClient(url, credentials=Credentials.from_environment())


_url_option = click.option(
    "--ledger-url",
    "client",
    envvar="DIMEE_LEDGER_URL",
    default="http://127.0.0.1:8700",
    show_default=True,
    callback=lambda _context, _option, url: ledger_client(url),
    help="Address of the ledger.",
)


@click.group()
def ledger() -> None:
    """Read the ledger, move it to another database, remove old requests."""


ledger.add_command(export_command)
ledger.add_command(import_command)
ledger.add_command(prune_command)


@ledger.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@_url_option
def summary(client: LedgerClient, as_json: bool) -> None:
    """Print shares, percentiles of durations, bytes, and costs in λ and in money."""
    report = client.summary()
    if as_json:
        click.echo(report.model_dump_json(indent=2))
    else:
        print_summary(report)


def _without_tier(report: Verification) -> str:
    """Return why callers have more attempts than tiers, which `verify` finds consistent."""
    count = report.caller_rows - report.tier_rows
    if not report.consistent or not count:
        return ""
    return f" ({count} were not sent, or got no response)"


@ledger.command()
@click.argument("request_id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@_url_option
def show(client: LedgerClient, request_id: str, as_json: bool) -> None:
    """Print the attempts of one request, each as its caller and its tier recorded it."""
    entries = client.request_entries(request_id)
    if as_json:
        rows = [entry.model_dump(mode="json", exclude_none=True) for entry in entries]
        click.echo(json.dumps(rows, indent=2))
        return
    trace_id = next((entry.trace_id for entry in entries if entry.trace_id), None)
    click.echo(f"request {request_id}" + (f" · trace {trace_id}" if trace_id else ""))
    for entry in entries:
        click.echo(_entry_line(entry))


def _age_s(_context: click.Context, _option: click.Parameter, value: str | None) -> float | None:
    age_s = None if value is None else parse_age(value)
    if value is not None and age_s is None:
        raise click.BadParameter(f"{value} is not an age; give one such as 30s, 10m, 2h or 7d")
    return age_s


@ledger.command("list")
@click.option(
    "--since", "since_s", metavar="AGE", callback=_age_s, help="Largest age: 10m, 2h, 7d."
)
@click.option("--until", "until_s", metavar="AGE", callback=_age_s, help="Smallest age: 5m, 1h.")
@click.option("--policy", metavar="POLICY", help="Policy that decided the request.")
@click.option(
    "--tier", type=click.Choice([tier.value for tier in Tier]), help="Tier of the final attempt."
)
@click.option(
    "--reason",
    type=click.Choice([reason.value for reason in Reason]),
    help="Reason for the final attempt.",
)
@click.option("--state", type=click.Choice(_ENDED), help="State of the final attempt.")
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_REQUESTS),
    default=20,
    show_default=True,
    help="Most requests to print.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@_url_option
def list_command(
    client: LedgerClient,
    as_json: bool,
    since_s: float | None,
    until_s: float | None,
    **conditions: Any,
) -> None:
    """List requests that have ended, newest first, each in a line with its identifier.

    The age of a request is that of its final attempt, by the clock of the mobile. Print all of one
    with: dimee ledger show, and why it went there with: dimee explain.
    """
    if since_s is not None and until_s is not None and since_s <= until_s:
        raise click.BadParameter("--since must be a larger age than --until")
    now = time.time()
    since, until = (
        None if age_s is None else max(0.0, now - age_s) for age_s in (since_s, until_s)
    )
    records = client.list_requests(since=since, until=until, **conditions)
    if as_json:
        click.echo(json.dumps([record.model_dump(mode="json") for record in records], indent=2))
    elif not records:
        click.echo("no request fits; give a larger --since, or leave out an option")
    else:
        for line in lines(records, now):
            click.echo(line)


@ledger.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option(
    "--wait",
    "wait_s",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0, 3600),
    help="Seconds to wait for entries that are not delivered yet.",
)
@click.option(
    "--day",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Only requests that began on this day (UTC, by the clocks of the mobiles).",
)
@_url_option
def verify(client: LedgerClient, as_json: bool, wait_s: float, day: datetime | None) -> None:
    """Match the two sides of every attempt.

    Exits with 0 if both sides of every attempt match and no attempt is open, otherwise with 1.
    """
    report = wait_for_consistent(client, wait_s, day=None if day is None else day.date())
    if as_json:
        click.echo(report.model_dump_json(indent=2))
    else:
        for finding in report.findings:
            row = f"{finding.attempt_id} {finding.side:<7}"
            click.echo(f"{finding.kind:<20} {row} {one_line(finding.detail)}")
        hidden = report.total_findings - len(report.findings)
        if hidden:
            click.echo(f"… and {hidden} more")
        click.echo(
            f"{report.requests} requests, {report.caller_rows} attempts by callers, "
            f"{report.tier_rows} by tiers{_without_tier(report)}: "
            + ("consistent" if report.consistent else f"{report.total_findings} findings")
        )
    sys.exit(0 if report.consistent else 1)


def wait_for_consistent(
    client: LedgerClient, wait_s: float, requests: int = 0, day: date | None = None
) -> Verification:
    """Verify until the ledger is consistent and holds ``requests`` requests, or ``wait_s`` pass.

    Outboxes deliver with a delay, and an empty ledger is consistent. To wait for all requests, give
    the number that were sent. With ``day``, only requests of that day count.
    """
    until = time.monotonic() + wait_s
    report = client.verify(day)
    while not (report.consistent and report.requests >= requests) and time.monotonic() < until:
        time.sleep(POLL_INTERVAL_S)
        report = client.verify(day)
    return report


def print_summary(report: Summary) -> None:
    """Print the summary, at most 100 columns wide."""
    if not report.requests:
        click.echo("the ledger is empty; send something first: dimee classify 'a fine film'")
        if report.pruned:
            print_pruned(report.pruned)
        return
    click.echo(displaced_line(report.not_from_chosen_tier, report.answered))
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
    click.echo(f"reasons   {_counts(report.attempts_by_reason)}")
    click.echo(f"policies  {_counts(report.requests_by_policy)}")
    click.echo(
        f"{'tier':<8} {'duration':<15} {'count':>7} {'p50 ms':>9} {'p95 ms':>9} {'p99 ms':>9}"
    )
    for row in report.durations:
        click.echo(
            f"{row.tier:<8} {row.what.removesuffix('_ms').replace('_', ' '):<15} {row.count:>7}"
            f" {_figure(row.p50, 2):>9} {_figure(row.p95, 2):>9} {_figure(row.p99, 2):>9}"
        )
    click.echo(f"bytes     {report.sent_bytes:,} sent, {report.received_bytes:,} received")
    click.echo(
        f"cost      {_figure(report.cost_lambda, 1)} λ against "
        f"{_figure(report.all_cloud_lambda, 1)} λ all-cloud "
        f"({_against_all_cloud(report.cost_lambda, report)})"
    )
    click.echo(
        f"          {_figure(report.cost_usd, 6)} USD, {_figure(report.energy_mj, 1)} mJ of the "
        f"mobile (price book {one_line(', '.join(report.price_books)) or 'none'})"
    )

    if report.audits.attempts:
        print_audits(report)
    if report.pruned:
        print_pruned(report.pruned)


def displaced_line(count: int, answered: int) -> str:
    """Return the first line of a report: the answers that say nothing about the chosen tiers."""
    share = f" ({count / answered:.1%})" if count and answered else ""
    return f"answers not from the tier that the policy chose: {count:,} of {answered:,}{share}"


def print_audits(report: Summary) -> None:
    """Print the results of audits and their cost."""
    audits = report.audits
    click.echo(
        f"audits    {audits.attempts} requests sent to the cloud, {audits.compared} compared, "
        f"{audits.differ} differ"
    )
    total = report.cost_lambda + audits.cost_lambda
    click.echo(
        f"          {_figure(audits.cost_lambda, 1)} λ, {_figure(audits.cost_usd, 6)} USD and "
        f"{audits.sent_bytes + audits.received_bytes:,} bytes, not included above; "
        f"with them {_against_all_cloud(total, report)} against all-cloud"
    )


def print_pruned(pruned: Pruned) -> None:
    """Print the removed requests and their cost, which no other line includes."""
    try:
        day = time.strftime("%Y-%m-%d", time.gmtime(pruned.received_before))
    except (OverflowError, ValueError, OSError):  # a year that the system has no calendar for
        day = f"second {_figure(pruned.received_before, 0)} since 1970"
    click.echo(
        f"pruned    {pruned.requests:,} requests ({pruned.entries:,} entries, "
        f"{_figure(pruned.cost_lambda, 1)} λ, {_figure(pruned.cost_usd, 6)} USD) from before "
        f"{day}, not in the figures above"
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{one_line(name)} {count}" for name, count in counts.items()) or "none"


def _figure(value: float, decimals: int) -> str:
    """Return a number with ``decimals``; in scientific notation if it is too long for a table."""
    return f"{value:,.{decimals}f}" if abs(value) < LONGEST_FIGURE else f"{value:.3e}"


def _against_all_cloud(cost_lambda: float, report: Summary) -> str:
    if not report.all_cloud_lambda:
        return "no cost to compare with"
    saved = cost_lambda / report.all_cloud_lambda - 1
    return f"{saved:+.1%}" if abs(saved) < LONGEST_FIGURE else f"{saved:+.3e} times"


def _entry_line(entry: LedgerEntry) -> str:
    parts = [f"  {entry.ordinal}. {entry.tier.value:<6} {entry.side.value:<6} {entry.state.value}"]
    if entry.side is Side.CALLER:
        policy = one_line(entry.policy or "an unknown policy")
        reason = f"{entry.reason.value} by {policy}" if entry.reason else ""
        parts.append(f"{reason}{f' ({entry.difficulty.value})' if entry.difficulty else ''}")
    if entry.degraded:
        parts.append("degraded")
    if entry.error_code:
        parts.append(f"error {one_line(entry.error_code)}")
    if entry.label is not None:
        label = one_line(entry.label)
        parts.append(f"{label} at exit {entry.exit_layer}, {entry.confidence or 0:.1%}")
    for name in ("decision_ms", "queue_ms", "compute_ms", "network_ms", "round_trip_ms"):
        value = getattr(entry, name)
        if value is not None:
            parts.append(f"{name.removesuffix('_ms').replace('_', ' ')} {_figure(value, 2)} ms")
    if entry.sent_bytes or entry.received_bytes:
        parts.append(f"{entry.sent_bytes} B sent, {entry.received_bytes} B received")
    if entry.cost_lambda is not None:
        cost = f"{_figure(entry.cost_lambda, 1)} λ, {_figure(entry.cost_usd or 0, 9)} USD"
        parts.append(cost)
    return " · ".join(part for part in parts if part)
