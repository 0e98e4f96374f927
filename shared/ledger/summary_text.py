"""The text of ``dimee ledger summary``."""

from __future__ import annotations

import time
from collections import Counter

import click

from shared.ledger.reports import Pruned, ReplicaCount, Summary
from shared.terminal import one_line

LONGEST_FIGURE = 1e12


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
    for line in _replica_lines(report.replicas):
        click.echo(line)
    click.echo(f"attempts  {_counts(report.attempts_by_state)}")
    click.echo(f"reasons   {_counts(report.attempts_by_reason)}")
    click.echo(f"policies  {_counts(report.requests_by_policy)}")
    click.echo(
        f"{'tier':<8} {'duration':<15} {'count':>7} {'p50 ms':>9} {'p95 ms':>9} {'p99 ms':>9}"
    )
    for row in report.durations:
        click.echo(
            f"{row.tier:<8} {row.what.removesuffix('_ms').replace('_', ' '):<15} {row.count:>7}"
            f" {figure(row.p50, 2):>9} {figure(row.p95, 2):>9} {figure(row.p99, 2):>9}"
        )
    click.echo(f"bytes     {report.sent_bytes:,} sent, {report.received_bytes:,} received")
    click.echo(
        f"cost      {figure(report.cost_lambda, 1)} λ against "
        f"{figure(report.all_cloud_lambda, 1)} λ all-cloud "
        f"({_against_all_cloud(report.cost_lambda, report)})"
    )
    click.echo(
        f"          {figure(report.cost_usd, 6)} USD, {figure(report.energy_mj, 1)} mJ of the "
        f"mobile (price book {one_line(', '.join(report.price_books)) or 'none'})"
    )

    if report.audits.attempts:
        print_audits(report)
    if report.pruned:
        print_pruned(report.pruned)


def _replica_lines(replicas: list[ReplicaCount]) -> list[str]:
    """Return a line for each replica of a tier that has several."""
    number = Counter(one.tier for one in replicas)
    answered: Counter[str] = Counter()
    for one in replicas:
        answered[one.tier] += one.answered
    return [
        f"  {one.tier:<7} {one.answered:>7} {one.answered / max(1, answered[one.tier]):>7.1%}   "
        f"replica {one.replica}: {one.answered} answered of {one.attempts} attempts"
        for one in replicas
        if number[one.tier] > 1
    ]


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
        f"          {figure(audits.cost_lambda, 1)} λ, {figure(audits.cost_usd, 6)} USD and "
        f"{audits.sent_bytes + audits.received_bytes:,} bytes, not included above; "
        f"with them {_against_all_cloud(total, report)} against all-cloud"
    )


def print_pruned(pruned: Pruned) -> None:
    """Print the removed requests and their cost, which no other line includes."""
    try:
        day = time.strftime("%Y-%m-%d", time.gmtime(pruned.received_before))
    except (OverflowError, ValueError, OSError):  # a year that the system has no calendar for
        day = f"second {figure(pruned.received_before, 0)} since 1970"
    click.echo(
        f"pruned    {pruned.requests:,} requests ({pruned.entries:,} entries, "
        f"{figure(pruned.cost_lambda, 1)} λ, {figure(pruned.cost_usd, 6)} USD) from before "
        f"{day}, not in the figures above"
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{one_line(name)} {count}" for name, count in counts.items()) or "none"


def figure(value: float, decimals: int) -> str:
    """Return a number with ``decimals``; in scientific notation if it is too long for a table."""
    return f"{value:,.{decimals}f}" if abs(value) < LONGEST_FIGURE else f"{value:.3e}"


def _against_all_cloud(cost_lambda: float, report: Summary) -> str:
    if not report.all_cloud_lambda:
        return "no cost to compare with"
    saved = cost_lambda / report.all_cloud_lambda - 1
    return f"{saved:+.1%}" if abs(saved) < LONGEST_FIGURE else f"{saved:+.3e} times"
