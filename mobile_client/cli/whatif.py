"""``dimee whatif``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from mobile_client.client import load_settings
from mobile_client.insight.replay import ReplayContext
from mobile_client.insight.request_trace import read_request
from mobile_client.insight.whatif import Interval, Measure, Scenario, WhatIfReport, what_if
from shared.credentials import Credentials
from shared.errors import InvalidInput
from shared.labels import counted
from shared.ledger.client import LedgerClient
from shared.link_profiles import LINKS, Link
from shared.policies.cascade_routing import CascadeRouting
from shared.pricing.cost_model import CostModel
from shared.pricing.live_prices import LivePrices

PRICES = {
    "mobile_layer": "Price of a layer on the mobile (λm).",
    "edge_layer": "Price of a layer at the edge (λe).",
    "offload_edge": "Price of an offload to the edge (oe).",
    "offload_cloud": "Price of an offload to the cloud (oc).",
    "cloud_fee": "Fee of the cloud (γ).",
}
LARGEST_PRICE = 1e9


def price_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add one option for each price of the cost model."""
    for name, description in reversed(PRICES.items()):
        flag = f"--{name.replace('_', '-')}"
        command = click.option(
            flag, metavar="λ|±%", help=f"{description} Give λ, or a change such as +30% or -20%."
        )(command)
    return command


@click.command()
@click.option(
    "--last",
    default=200,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Number of requests to replay, from the newest.",
)
@price_options
@click.option(
    "--price-book",
    type=click.Path(path_type=Path),
    help="File with prices in λ to start from instead of the present ones.",
)
@click.option("--link", type=click.Choice(list(LINKS)), help="Link of the mobile in the scenario.")
@click.option(
    "--rtt-ms", type=click.FloatRange(0, 60_000), help="Round-trip time of the link, in ms."
)
@click.option(
    "--latency-price",
    type=click.FloatRange(0, 1e6),
    help="Price of waiting a millisecond, in λ; by default that of each request's decision.",
)
@click.option("--bundle", type=click.Path(), help="Folder of the bundle.")
@click.option("--ledger-url", help="Address of the ledger.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def whatif(
    last: int,
    price_book: Path | None,
    link: str | None,
    rtt_ms: float | None,
    latency_price: float | None,
    bundle: str | None,
    ledger_url: str | None,
    as_json: bool,
    **prices: str | None,
) -> None:
    """Replay the last requests of the policy cascade-routing at other prices or links.

    The policy decides each request again. If the new first tier answered the request, its recorded
    answer is used, otherwise the policy's expectation of it.
    """
    settings = load_settings(bundle=bundle, ledger_url=ledger_url)
    context = ReplayContext.load(settings)
    today = context.policy.conditions.cost_model if context.policy else context.bundle.cost_model
    base = today
    if price_book is not None:
        live_prices = LivePrices(today, price_book)
        base = live_prices.cost_model
        if latency_price is None and settings.latency_price_lambda is None:
            latency_price = live_prices.latency_price_lambda
    scenario = Scenario(_changed(base, prices), _link(link, rtt_ms), latency_price)
    client = LedgerClient(settings.ledger_url, credentials=Credentials.of(settings))
    try:
        requests = [
            read_request(entries) for entries in client.last_requests(last, CascadeRouting.name)
        ]
    finally:
        client.close()
    report = what_if(requests, context, scenario)
    click.echo(json.dumps(asdict(report), indent=2) if as_json else "\n".join(lines(report)))


def _changed(today: CostModel, options: dict[str, str | None]) -> CostModel:
    changes: dict[str, Any] = {
        name: new_price(name, getattr(today, name), text)
        for name, text in options.items()
        if text is not None
    }
    return replace(today, **changes)


def new_price(name: str, today: float, text: str) -> float:
    """Return the price for ``text``: a number of λ, or a change of ``today`` in percent."""
    option = f"--{name.replace('_', '-')}"
    change = re.fullmatch(r"([+-]\d+(?:\.\d+)?)\s*%", text.strip())
    if change:
        price = today * (1 + float(change[1]) / 100)
    elif re.fullmatch(r"\d+(?:\.\d+)?", text.strip()):
        price = float(text)
    else:
        price = math.nan
    if not 0 <= price <= LARGEST_PRICE:
        raise InvalidInput(
            f"{option}: {text!r} is not a price; give λ of at least 0, such as 11, or a change of "
            "the present price, such as +30% or -20%",
            field=name,
        )
    return price


def _link(name: str | None, rtt_ms: float | None) -> Link | None:
    if rtt_ms is None:
        return LINKS[name] if name else None
    link = LINKS[name] if name else Link("given", 0.0, math.inf, math.inf)
    return replace(link, one_way_ms=rtt_ms / 2)


def lines(report: WhatIfReport) -> list[str]:
    """Return the report as lines of at most 100 columns."""
    left = ", ".join(f"{count} {reason}" for reason, count in report.left_out.items())
    changed = [
        f"{name} {before:g} → {after:g} λ"
        for name, before, after in (
            (name, getattr(report.prices_before, name), getattr(report.prices_after, name))
            for name in PRICES
        )
        if before != after
    ]
    latency_prices = report.latency_price_before, report.latency_price_after
    if latency_prices[0] != latency_prices[1]:
        changed.append(f"waiting {latency_prices[0]:g} → {latency_prices[1]:g} λ a ms")
    result = [
        f"{counted(report.requests, 'request')} of {CascadeRouting.name}"
        + (f" (left out: {left})" if left else ""),
        f"prices: {', '.join(changed) or 'unchanged'}",
        f"replay: {report.reproduced:.1%} of the requests decided as recorded; recorded cost "
        f"{report.recorded_lambda:.2f} λ a request",
        "",
        f"{'':<20}{'before':>24}{'after':>26}{'change':>26}",
    ]
    result += [_measure_row(measure) for measure in report.measures]
    result += [
        "",
        f"{report.rerouted:.1%} of the requests go to another tier first. Of the answers after the "
        f"change,",
        f"{1 - report.modelled_after:.1%} were recorded and {report.modelled_after:.1%} are the "
        f"policy's expectation (before: {report.modelled_before:.1%}).",
        "In brackets: 95 % bootstrap interval over the requests; the error of the policy's "
        "expectation",
        "is not included.",
    ]
    return result + [f"note: {note}" for note in report.notes]


def _measure_row(measure: Measure) -> str:
    percent = measure.name not in ("cost λ", "latency ms")
    digits = 2 if measure.name == "cost λ" else 1
    cells = [
        _interval_cell(interval, percent, digits, sign)
        for interval, sign in ((measure.before, ""), (measure.after, ""), (measure.change, "+"))
    ]
    return f"{measure.name:<20}{cells[0]:>24}{cells[1]:>26}{cells[2]:>26}"


def _interval_cell(interval: Interval, percent: bool, digits: int, sign: str) -> str:
    scale, unit = (100, "%" if not sign else " pt") if percent else (1, "")
    mean, low, high = (
        value * scale + 0.0 for value in (interval.mean, interval.low, interval.high)
    )
    return f"{mean:{sign}.{digits}f}{unit} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"
