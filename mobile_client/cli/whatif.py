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
from mobile_client.insight.replay import AtHand
from mobile_client.insight.request_trace import read_request
from mobile_client.insight.whatif import Change, Interval, Measure, WhatIf, what_if
from shared.credentials import Credentials
from shared.errors import InvalidInput
from shared.ledger.client import LedgerClient
from shared.link_profiles import LINKS, Link
from shared.policies.cascade_routing import CascadeRouting
from shared.pricing.cost_model import CostModel
from shared.pricing.live_prices import LivePrices

PRICES = {
    "mobile_layer": "λm, a layer on the mobile.",
    "edge_layer": "λe, a layer at the edge.",
    "offload_edge": "oe, an offload to the edge.",
    "offload_cloud": "oc, an offload to the cloud.",
    "cloud_fee": "γ, the cloud's fee.",
}
LARGEST_PRICE = 1e9


def price_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """One option for each price of the cost model."""
    for name, what in reversed(PRICES.items()):
        flag = f"--{name.replace('_', '-')}"
        command = click.option(flag, metavar="λ|±%", help=f"{what} A number, or +30%, -20%.")(
            command
        )
    return command


@click.command()
@click.option(
    "--last",
    default=200,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="How many requests, from the newest.",
)
@price_options
@click.option(
    "--price-book",
    type=click.Path(path_type=Path),
    help="Prices in λ from a file, in place of today's; the options above change them.",
)
@click.option("--link", type=click.Choice(list(LINKS)), help="What the mobile's link would be.")
@click.option("--rtt-ms", type=click.FloatRange(0, 60_000), help="The link's round trip.")
@click.option(
    "--latency-price",
    type=click.FloatRange(0, 1e6),
    help="λ of waiting a millisecond; as each request was decided if left out, 0: nothing.",
)
@click.option("--bundle", type=click.Path(), help="Folder of the model's bundle.")
@click.option("--ledger-url", help="Where the ledger listens.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
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
    """Replay the last requests of the policy cascade-routing under other prices.

    Decides anew with the policy's own object. Where a tier is asked that really answered the
    request, its answer is used, elsewhere what the policy expects of it.
    """
    settings = load_settings(bundle=bundle, ledger_url=ledger_url)
    at_hand = AtHand.load(settings)
    today = at_hand.value.conditions.cost_model if at_hand.value else at_hand.bundle.cost_model
    base = today
    if price_book is not None:
        tariff = LivePrices(today, price_book)
        base = tariff.cost_model
        if latency_price is None and settings.latency_price_lambda is None:
            latency_price = tariff.latency_price_lambda
    change = Change(_changed(base, prices), _link(link, rtt_ms), latency_price)
    client = LedgerClient(settings.ledger_url, credentials=Credentials.of(settings))
    try:
        requests = [read_request(entries) for entries in client.last(last, CascadeRouting.name)]
    finally:
        client.close()
    report = what_if(requests, at_hand, change)
    click.echo(json.dumps(asdict(report), indent=2) if as_json else "\n".join(lines(report)))


def _changed(today: CostModel, given: dict[str, str | None]) -> CostModel:
    changes: dict[str, Any] = {
        name: new_price(name, getattr(today, name), text)
        for name, text in given.items()
        if text is not None
    }
    return replace(today, **changes)


def new_price(name: str, today: float, text: str) -> float:
    """The price that ``text`` means: a number of λ, or a change in percent of today's."""
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
            f"{option}: {text!r} is no price; give λ of at least 0, such as 11, or a change of "
            "today's, such as +30% or -20%",
            field=name,
        )
    return price


def _link(name: str | None, rtt_ms: float | None) -> Link | None:
    if rtt_ms is None:
        return LINKS[name] if name else None
    link = LINKS[name] if name else Link("given", 0.0, math.inf, math.inf)
    return replace(link, one_way_ms=rtt_ms / 2)


def lines(report: WhatIf) -> list[str]:
    """The report for people, at most 100 columns."""
    left = ", ".join(f"{count} {reason}" for reason, count in report.left_out.items())
    changed = [
        f"{name} {before:g} → {after:g} λ"
        for name, before, after in (
            (name, getattr(report.prices_before, name), getattr(report.prices_after, name))
            for name in PRICES
        )
        if before != after
    ]
    rates = report.ms_lambda_before, report.ms_lambda_after
    if rates[0] != rates[1]:
        changed.append(f"waiting {rates[0]:g} → {rates[1]:g} λ a ms")
    told = [
        f"{report.requests} requests of {CascadeRouting.name}"
        + (f" (left out: {left})" if left else ""),
        f"prices: {', '.join(changed) or 'as they are'}",
        f"replay: {report.reproduced:.1%} of the requests decided as live; booked "
        f"{report.booked_lambda:.2f} λ a request",
        "",
        f"{'':<20}{'before':>24}{'after':>26}{'change':>26}",
    ]
    told += [_row(measure) for measure in report.measures]
    told += [
        "",
        f"{report.moved:.1%} of the requests are asked of another tier first; of the answers after "
        f"the change",
        f"{1 - report.modelled_after:.1%} were really given, {report.modelled_after:.1%} are what "
        f"the policy expects (before: {report.modelled_before:.1%}).",
        "In brackets: 95 % of the bootstrap over requests, without the error of what is expected.",
    ]
    return told + [f"note: {note}" for note in report.notes]


def _row(measure: Measure) -> str:
    percent = measure.name not in ("cost λ", "latency ms")
    digits = 2 if measure.name == "cost λ" else 1
    cells = [
        _cell(one, percent, digits, sign)
        for one, sign in ((measure.before, ""), (measure.after, ""), (measure.change, "+"))
    ]
    return f"{measure.name:<20}{cells[0]:>24}{cells[1]:>26}{cells[2]:>26}"


def _cell(one: Interval, percent: bool, digits: int, sign: str) -> str:
    scale, unit = (100, "%" if not sign else " pt") if percent else (1, "")
    mean, low, high = (value * scale + 0.0 for value in (one.mean, one.low, one.high))
    return f"{mean:{sign}.{digits}f}{unit} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"
