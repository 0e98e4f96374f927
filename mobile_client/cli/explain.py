"""``dimee explain``."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from mobile_client.client import load_settings
from mobile_client.insight.explain import explain
from mobile_client.insight.explanation import (
    AttemptView,
    Explanation,
    TierView,
    percentage_points,
)
from mobile_client.insight.replay import ReplayContext
from mobile_client.insight.request_trace import read_request
from shared.credentials import Credentials
from shared.domain import Tier
from shared.ledger.client import LedgerClient

LEGEND = {
    "first tier": "◄ marks the tier that was chosen",
    "P(right)": "probability of a right answer, predicted before any layer ran",
    "P(≥ α)": "predicted probability that the answer's confidence reaches the threshold α",
    "if ≥ α": "share of such answers that escalate, and where to",
    "if < α": "share of such answers that escalate, and where to",
    "expected λ": "expected cost, escalations included",
    "λ range": "cost of an answer at the first and at the last layer",
    "value": "expected value in percentage points: P(right) against the cloud less the cost",
    "paid λ": "recorded cost of the tier's answer",
}
"""Meaning of the columns that do not explain themselves."""


@click.command("explain")
@click.argument("request_id")
@click.option("--bundle", type=click.Path(), help="Folder of the bundle that answered the request.")
@click.option("--ledger-url", help="Address of the ledger.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def explain_command(
    request_id: str, bundle: str | None, ledger_url: str | None, as_json: bool
) -> None:
    """Explain why a tier answered a request, and what the other tiers would have cost."""
    settings = load_settings(bundle=bundle, ledger_url=ledger_url)
    client = LedgerClient(settings.ledger_url, credentials=Credentials.of(settings))
    try:
        request = read_request(client.request_entries(request_id))
    finally:
        client.close()
    explanation = explain(request, ReplayContext.load(settings))
    if as_json:
        click.echo(json.dumps(asdict(explanation), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(lines(explanation)))


def lines(explanation: Explanation) -> list[str]:
    """Return the explanation as lines of text."""
    result = [
        f"request {explanation.request_id} by {explanation.policy}, bundle {explanation.bundle_id}"
    ]
    if explanation.certificate_id:
        result.append(f"covered by certificate {explanation.certificate_id}")
    result += ["", f"why {explanation.why}."]
    if explanation.cost_weight:
        points = percentage_points(explanation.cost_weight, sign=False)
        result.append(f"One λ counts as {points} of the probability of a right answer (Λ).")
    if explanation.latency_price_lambda:
        result.append(
            f"Waiting a second cost {1e3 * explanation.latency_price_lambda:g} λ "
            f"({explanation.latency_price_lambda:g} λ a millisecond); delays are those that the "
            "mobile had measured."
        )
    elif explanation.latency_price_lambda is not None:
        result.append("Waiting cost nothing (0 λ a millisecond).")
    result += ["", *_table(explanation.tiers, explanation.attempts[0].tier.value), ""]
    for attempt in explanation.attempts:
        result += _attempt_lines(attempt, explanation.alpha)
    return result + [f"note: {note}" for note in explanation.notes]


def _table(tiers: list[TierView], chosen: str) -> list[str]:
    columns: list[tuple[str, list[str]]] = [
        ("first tier", [f"{one.tier}{' ◄' * (one.tier == chosen)}" for one in tiers]),
        ("pool", [one.difficulty.value if one.difficulty else "" for one in tiers]),
        ("distance", [_number(one.distance, ".4f") for one in tiers]),
        ("P(right)", [_number(one.right, ".1%") for one in tiers]),
        ("P(≥ α)", [_number(one.confident, ".1%") for one in tiers]),
        ("if ≥ α", _escalations([one.escalates_confident for one in tiers], omit_empty=True)),
        ("if < α", _escalations([one.escalates_not_confident for one in tiers])),
        ("expected λ", [_number(one.cost_lambda, ".2f") for one in tiers]),
        ("delay, ms", [_number(one.delay_ms, ".1f") for one in tiers]),
        ("waiting, λ", [_number(one.waiting_lambda, ".2f") for one in tiers]),
        ("λ range", [_range(one) for one in tiers]),
        (
            "value",
            [_number(one.expected_value and 100 * one.expected_value, "+.2f") for one in tiers],
        ),
        ("paid λ", [_number(one.recorded_lambda, ".2f") for one in tiers]),
        ("paid USD", [_number(one.recorded_usd, ".9f") for one in tiers]),
    ]
    shown = [(title, cells) for title, cells in columns if any(cells)]
    rows = [[title for title, _ in shown]]
    rows += [[cells[i] or "–" for _, cells in shown] for i in range(len(tiers))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(shown))]
    table = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    legend = [f"  {title:<10}  {LEGEND[title]}" for title, _ in shown if title in LEGEND]
    return [*table, *_threshold_plans(tiers), *legend]


def _number(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)


def _escalations(shares: list[dict[Tier, float] | None], omit_empty: bool = False) -> list[str]:
    """Return a cell for each tier; empty cells if ``omit_empty`` and no tier escalates."""
    if omit_empty and not any(shares):
        return ["" for _ in shares]
    return ["" if one is None else _escalation(one) for one in shares]


def _escalation(shares: dict[Tier, float]) -> str:
    return ", ".join(f"{share:.0%} to {to}" for to, share in shares.items()) or "stays"


def _threshold_plans(tiers: list[TierView]) -> list[str]:
    return [
        f"The value of {one.tier} is that of escalating every answer below α to the "
        f"{one.threshold_target}; each answer is then decided by its own gain."
        for one in tiers
        if one.threshold_target
    ]


def _range(one: TierView) -> str:
    if one.min_lambda is None or one.max_lambda is None:
        return ""
    low, high = f"{one.min_lambda:.1f}", f"{one.max_lambda:.1f}"
    return low if low == high else f"{low} to {high}"


def _attempt_lines(one: AttemptView, alpha: float | None) -> list[str]:
    parts = [f"{one.ordinal}. {one.tier} ({one.reason.replace('_', ' ')})"]
    if one.label is not None:
        parts.append(f"{one.label} at exit {one.exit_layer}, confidence {one.confidence or 0:.1%}")
        if alpha is not None and one.tier != "cloud":
            parts[-1] += f" (α {alpha:.1%})"
    else:
        parts.append(f"{one.state.replace('_', ' ')}: {one.error_code or 'no reason given'}")
    if one.right is not None:
        parts.append(f"right with probability {one.right:.1%}")
    if one.round_trip_ms is not None:
        parts.append(f"{one.round_trip_ms:.1f} ms")
    if one.cost_lambda is not None:
        parts.append(f"{one.cost_lambda:.2f} λ, {one.cost_usd or 0:.9f} USD")
    result = [" · ".join(parts)]
    for option in one.options:
        waiting = f" and {option.waiting_lambda:.2f} λ of waiting" if option.waiting_lambda else ""
        comparison = "gain exceeds cost" if option.net_gain > 0 else "cost exceeds gain"
        result.append(
            f"     {option.tier:<5} gain {percentage_points(option.gain)}, cost "
            f"{option.cost_lambda:.2f} λ{waiting} = {percentage_points(option.cost, sign=False)}: "
            f"{comparison}"
        )
    return [*result, f"     {one.verdict}"]
