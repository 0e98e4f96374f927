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
from shared.terminal import one_line

LEGEND = {
    "first tier": "place where the text could start; ◄ marks the tier that was chosen",
    "pool": "texts that are meant for this tier: easy, moderate or hard",
    "distance": "distance of the text's mean word embedding to the centroid of the pool, without "
    "unit",
    "P(right)": "probability of a right answer, predicted before any layer ran",
    "P(≥ α)": "predicted probability that the answer's confidence reaches the threshold α",
    "if ≥ α": "share of such answers that escalate, and where to",
    "if < α": "share of such answers that escalate, and where to",
    "expected λ": "expected cost, escalations included",
    "delay, ms": "delay of the tier's answer in milliseconds, as the mobile had measured it",
    "waiting, λ": "expected price of waiting for the answer, in λ",
    "λ range": "cost of an answer at the first and at the last layer, in λ",
    "value": "expected value in percentage points: P(right) against the cloud less the cost",
    "paid λ": "recorded cost of the tier's answer, in λ",
    "paid USD": "recorded cost of the tier's answer by the price book, in US dollars",
}
"""Meanings of all columns, printed below the table."""
DECIDED_BY = {
    "expected_value": "The figure that decides is the value: the highest is chosen, of the tiers "
    "that have one.",
    "distance": "The figure that decides is the distance: the lowest is chosen. Costs decide "
    "nothing.",
    None: "No figure of the table decides: this policy compares none.",
}
"""Sentences about the column that decides, by `Explanation.decided_by`."""


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
        + (f", trace {explanation.trace_id}" if explanation.trace_id else "")
    ]
    if explanation.certificate_id:
        result.append(f"covered by certificate {explanation.certificate_id}")
    result += ["", f"why {explanation.why}."]
    if explanation.cost_weight:
        points = f"{100 * explanation.cost_weight:.3g}"
        result.append(f"One λ counts as {points} points of the probability of a right answer (Λ).")
    if explanation.latency_price_lambda:
        result.append(
            f"Waiting a second cost {1e3 * explanation.latency_price_lambda:g} λ "
            f"({explanation.latency_price_lambda:g} λ a millisecond); the delays were measured by "
            "the mobile."
        )
    elif explanation.latency_price_lambda is not None:
        result.append("Waiting cost nothing (0 λ a millisecond).")
    result += ["", *_table(explanation.tiers, explanation.attempts[0].tier.value)]
    result += [DECIDED_BY[explanation.decided_by], ""]
    for attempt in explanation.attempts:
        result += _attempt_lines(attempt, explanation.alpha)
    result += [f"note: {note}" for note in explanation.notes]
    return [one_line(line) for line in result]


def _table(tiers: list[TierView], chosen: str) -> list[str]:
    columns: list[tuple[str, list[str]]] = [
        ("first tier", [f"{view.tier}{' ◄' * (view.tier == chosen)}" for view in tiers]),
        ("pool", [view.difficulty.value if view.difficulty else "" for view in tiers]),
        ("distance", [_format_number(view.distance, ".4f") for view in tiers]),
        ("P(right)", [_format_number(view.right, ".1%") for view in tiers]),
        ("P(≥ α)", [_format_number(view.confident, ".1%") for view in tiers]),
        ("if ≥ α", _escalations([view.escalates_confident for view in tiers], omit_empty=True)),
        ("if < α", _escalations([view.escalates_not_confident for view in tiers])),
        ("expected λ", [_format_number(view.cost_lambda, ".2f") for view in tiers]),
        ("delay, ms", [_format_number(view.delay_ms, ".1f") for view in tiers]),
        ("waiting, λ", [_format_number(view.waiting_lambda, ".2f") for view in tiers]),
        ("λ range", [_range(view) for view in tiers]),
        (
            "value",
            [
                _format_number(view.expected_value and 100 * view.expected_value, "+.2f")
                for view in tiers
            ],
        ),
        ("paid λ", [_format_number(view.recorded_lambda, ".2f") for view in tiers]),
        ("paid USD", [_format_number(view.recorded_usd, ".9f") for view in tiers]),
    ]
    used_columns = [(title, cells) for title, cells in columns if any(cells)]
    rows = [[title for title, _ in used_columns]]
    rows += [[cells[i] or "–" for _, cells in used_columns] for i in range(len(tiers))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(used_columns))]
    table = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    legend = [f"  {title:<10}  {LEGEND[title]}" for title, _ in used_columns]
    return [*table, *_threshold_plans(tiers), *legend]


def _format_number(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)


def _escalations(shares: list[dict[Tier, float] | None], omit_empty: bool = False) -> list[str]:
    """Return a cell for each tier; empty cells if ``omit_empty`` and no tier escalates."""
    if omit_empty and not any(shares):
        return ["" for _ in shares]
    return ["" if tier_shares is None else _escalation(tier_shares) for tier_shares in shares]


def _escalation(shares: dict[Tier, float]) -> str:
    return ", ".join(f"{share:.0%} to {to}" for to, share in shares.items()) or "stays"


def _threshold_plans(tiers: list[TierView]) -> list[str]:
    return [
        f"The value of {view.tier} is that of escalating every answer below α to the "
        f"{view.threshold_target}; each answer is then decided by its own gain."
        for view in tiers
        if view.threshold_target
    ]


def _range(view: TierView) -> str:
    if view.min_lambda is None or view.max_lambda is None:
        return ""
    low, high = f"{view.min_lambda:.1f}", f"{view.max_lambda:.1f}"
    return low if low == high else f"{low} to {high}"


def _attempt_lines(attempt: AttemptView, alpha: float | None) -> list[str]:
    parts = [f"{attempt.ordinal}. {attempt.tier} ({attempt.reason.replace('_', ' ')})"]
    if attempt.label is not None:
        confidence = attempt.confidence or 0
        parts.append(f"{attempt.label} at exit {attempt.exit_layer}, confidence {confidence:.1%}")
        if alpha is not None and attempt.tier != "cloud":
            parts[-1] += f" (α {alpha:.1%})"
    else:
        parts.append(f"{attempt.state.replace('_', ' ')}: {attempt.error_code or 'no error code'}")
    if attempt.right is not None:
        parts.append(f"right with probability {attempt.right:.1%}")
    if attempt.round_trip_ms is not None:
        parts.append(f"{attempt.round_trip_ms:.1f} ms")
    if attempt.cost_lambda is not None:
        parts.append(f"{attempt.cost_lambda:.2f} λ, {attempt.cost_usd or 0:.9f} USD")
    result = [" · ".join(parts)]
    for option in attempt.options:
        waiting = f" and {option.waiting_lambda:.2f} λ of waiting" if option.waiting_lambda else ""
        comparison = "gain exceeds cost" if option.net_gain > 0 else "cost exceeds gain"
        result.append(
            f"     {option.tier:<5} gain {percentage_points(option.gain)}, cost "
            f"{option.cost_lambda:.2f} λ{waiting} = {percentage_points(option.cost, sign=False)}: "
            f"{comparison}"
        )
    return [*result, f"     {attempt.verdict}"]
