"""``dimee explain``."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from mobile_client.client import load_settings
from mobile_client.insight.explain import AttemptView, Explanation, TierView, explain, points
from mobile_client.insight.replay import AtHand
from mobile_client.insight.request_trace import read_request
from shared.credentials import Credentials
from shared.domain import Tier
from shared.ledger.client import LedgerClient


@click.command("explain")
@click.argument("request_id")
@click.option("--bundle", type=click.Path(), help="Folder of the bundle that answered it.")
@click.option("--ledger-url", help="Where the ledger listens.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain_command(
    request_id: str, bundle: str | None, ledger_url: str | None, as_json: bool
) -> None:
    """Tell why a request was answered where it was, and what the other tiers offered."""
    settings = load_settings(bundle=bundle, ledger_url=ledger_url)
    client = LedgerClient(settings.ledger_url, credentials=Credentials.of(settings))
    try:
        request = read_request(client.request(request_id))
    finally:
        client.close()
    story = explain(request, AtHand.load(settings))
    if as_json:
        click.echo(json.dumps(asdict(story), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(lines(story)))


def lines(story: Explanation) -> list[str]:
    """The story for people."""
    told = [f"request {story.request_id} by {story.policy}, bundle {story.bundle_id}"]
    if story.certificate_id:
        told.append(f"under certificate {story.certificate_id}")
    told += ["", f"why {story.why}."]
    if story.price:
        told.append(f"One λ is worth {points(story.price, sign=False)} of being right (Λ).")
    if story.latency_price_lambda:
        told.append(
            f"Waiting a second cost {1e3 * story.latency_price_lambda:g} λ "
            f"({story.latency_price_lambda:g} λ a millisecond); delays are those that "
            "the mobile had measured."
        )
    elif story.latency_price_lambda is not None:
        told.append("Waiting cost nothing (0 λ a millisecond).")
    told += ["", *_table(story.tiers, story.attempts[0].tier.value), *_plans(story.tiers), ""]
    for attempt in story.attempts:
        told += _attempt(attempt, story.alpha)
    return told + [f"note: {note}" for note in story.notes]


def _table(tiers: list[TierView], chosen: str) -> list[str]:
    columns: list[tuple[str, list[str]]] = [
        ("before any answer", [f"{one.tier}{' ◄' * (one.tier == chosen)}" for one in tiers]),
        ("pool", [one.difficulty.value if one.difficulty else "" for one in tiers]),
        ("distance", [_number(one.distance, ".4f") for one in tiers]),
        ("right", [_number(one.right, ".1%") for one in tiers]),
        ("sure exit", [_number(one.leaves_early, ".1%") for one in tiers]),
        ("if sure", _thens([one.goes_on_sure for one in tiers], only_where_some=True)),
        ("if not sure", _thens([one.goes_on_not_sure for one in tiers])),
        ("expected λ", [_number(one.cost_lambda, ".2f") for one in tiers]),
        ("delay, ms", [_number(one.delay_ms, ".1f") for one in tiers]),
        ("waiting, λ", [_number(one.waiting_lambda, ".2f") for one in tiers]),
        ("λ would be", [_range(one) for one in tiers]),
        ("worth, points", [_number(one.worth and 100 * one.worth, "+.2f") for one in tiers]),
        ("booked λ", [_number(one.booked_lambda, ".2f") for one in tiers]),
        ("booked USD", [_number(one.booked_usd, ".9f") for one in tiers]),
    ]
    shown = [(title, cells) for title, cells in columns if any(cells)]
    rows = [[title for title, _ in shown]]
    rows += [[cells[i] or "–" for _, cells in shown] for i in range(len(tiers))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(shown))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _number(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def _thens(shares: list[dict[Tier, float] | None], only_where_some: bool = False) -> list[str]:
    """A cell for each tier that answers in one state go on to; empty where there is none."""
    if only_where_some and not any(shares):
        return ["" for _ in shares]
    return ["" if one is None else _then(one) for one in shares]


def _then(shares: dict[Tier, float]) -> str:
    return ", ".join(f"{share:.0%} to {to}" for to, share in shares.items()) or "stays"


def _plans(tiers: list[TierView]) -> list[str]:
    """Which expected_values are those of sending on all that is not sure."""
    return [
        f"The worth of {one.tier} is that of sending all that is not sure to the {one.goes_on_to}; "
        "each answer is then judged by its own gain."
        for one in tiers
        if one.goes_on_to
    ]


def _range(one: TierView) -> str:
    if one.least_lambda is None or one.most_lambda is None:
        return ""
    least, most = f"{one.least_lambda:.1f}", f"{one.most_lambda:.1f}"
    return least if least == most else f"{least} to {most}"


def _attempt(one: AttemptView, alpha: float | None) -> list[str]:
    parts = [f"{one.ordinal}. {one.tier} ({one.reason.replace('_', ' ')})"]
    if one.label is not None:
        parts.append(f"{one.label} at exit {one.exit_layer}, {one.confidence or 0:.1%} sure")
        if alpha is not None and one.tier != "cloud":
            parts[-1] += f" (α {alpha:.1%})"
    else:
        parts.append(f"{one.state.replace('_', ' ')}: {one.error_code or 'no reason given'}")
    if one.right is not None:
        parts.append(f"right with {one.right:.1%}")
    if one.round_trip_ms is not None:
        parts.append(f"{one.round_trip_ms:.1f} ms")
    if one.cost_lambda is not None:
        parts.append(f"{one.cost_lambda:.2f} λ, {one.cost_usd or 0:.9f} USD")
    told = [" · ".join(parts)]
    for option in one.options:
        told.append(
            f"     {option.tier:<5} would gain {points(option.gain)} for {option.cost_lambda:.2f} λ"
            + (f" and {option.waiting_lambda:.2f} λ of waiting" if option.waiting_lambda else "")
            + f" = {points(option.price, sign=False)}: "
            + ("worth it" if option.worth > 0 else "not worth it")
        )
    return [*told, f"     {one.verdict}"]
