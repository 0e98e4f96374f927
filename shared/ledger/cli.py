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
from shared.ledger.reports import Verification
from shared.ledger.request_list import MAX_REQUESTS
from shared.ledger.request_table import lines
from shared.ledger.server.maintenance_cli import export_command, import_command, prune_command
from shared.ledger.summary_text import figure, print_summary
from shared.ledger.verification_text import verification_lines
from shared.terminal import one_line

POLL_INTERVAL_S = 0.1
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
        for line in verification_lines(report, time.time()):
            click.echo(line)
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


def _entry_line(entry: LedgerEntry) -> str:
    parts = [f"  {entry.ordinal}. {entry.tier.value:<6} {entry.side.value:<6} {entry.state.value}"]
    if entry.side is Side.CALLER:
        policy = one_line(entry.policy or "an unknown policy")
        reason = f"{entry.reason.value} by {policy}" if entry.reason else ""
        parts.append(f"{reason}{f' ({entry.difficulty.value})' if entry.difficulty else ''}")
    if entry.side is Side.TIER and entry.replica:
        parts.append(f"replica {entry.replica}")
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
            parts.append(f"{name.removesuffix('_ms').replace('_', ' ')} {figure(value, 2)} ms")
    if entry.sent_bytes or entry.received_bytes:
        parts.append(f"{entry.sent_bytes} B sent, {entry.received_bytes} B received")
    if entry.cost_lambda is not None:
        cost = f"{figure(entry.cost_lambda, 1)} λ, {figure(entry.cost_usd or 0, 9)} USD"
        parts.append(cost)
    return " · ".join(part for part in parts if part)
