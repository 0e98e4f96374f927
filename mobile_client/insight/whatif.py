"""What the last requests would have come to under other prices: before and after, with intervals.

Shape suffixes: N requests, M measures, B bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mobile_client.insight.delays import Delays
from mobile_client.insight.replay import AtHand, Course, Replay, replayable, under
from mobile_client.insight.request_trace import RequestTrace
from shared.bundle.correctness_heads import TIERS
from shared.domain import Tier
from shared.errors import BundleError, NotFound
from shared.link_profiles import Link
from shared.policies.cascade_routing import CascadeRouting
from shared.policies.conditions import Conditions
from shared.pricing.cost_model import CostModel

Floats = NDArray[np.float64]
SAMPLES = 2_000
CONFIDENCE = 0.95
FEW = 30
"""Below so many requests an interval is printed, and called rough."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be other than it is: prices in λ, the link, the price of waiting a ms in λ.

    None: the link as it is now, and of each request the price of waiting that it was decided at.
    """

    prices: CostModel
    link: Link | None = None
    latency_price_lambda: float | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over the requests, and the 95 % interval of it from `SAMPLES` bootstrap samples."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure before and after; ``change`` is taken request by request."""

    name: str
    before: Interval
    after: Interval
    change: Interval


@dataclass(frozen=True, slots=True)
class WhatIf:
    """The comparison. ``reproduced`` is the share of requests that are decided again as live.

    They are at today's prices in λ, and by the price of waiting and the delays that are recorded.
    ``ms_lambda_*`` are the prices of waiting that were decided at, means where they differ.

    ``modelled_*`` are the shares of requests whose answer is the policy's expectation and was never
    given; ``moved`` is the share that another tier is asked first. ``booked_lambda`` is the mean
    bill, failed attempts included. ``left_out`` says why how many requests could not be replayed.
    """

    requests: int
    left_out: dict[str, int]
    reproduced: float
    modelled_before: float
    modelled_after: float
    moved: float
    booked_lambda: float
    prices_before: CostModel
    prices_after: CostModel
    delay_ms_before: dict[Tier, float]
    delay_ms_after: dict[Tier, float]
    ms_lambda_before: float
    ms_lambda_after: float
    measures: list[Measure]
    notes: list[str] = field(default_factory=list)


def what_if(
    requests: Sequence[RequestTrace], at_hand: AtHand, change: Change, seed: int = 0
) -> WhatIf:
    """Replay the requests as things are and under ``change``.

    Raises `BundleError` where the bundle has no correctness heads, `NotFound` where no request can
    be replayed.
    """
    policy = at_hand.value
    if policy is None:
        raise BundleError(
            "bundle: it has no correctness heads, without which the policy cascade-routing cannot "
            "be replayed; export it again"
        )
    kept, left_out = replayable(requests, at_hand.bundle.bundle_id)
    if not kept:
        raise NotFound(_nothing(left_out, at_hand.bundle.bundle_id))
    layers = _layers(policy)
    delays = Delays(kept, layers), Delays(kept, layers, change.link)
    now = policy.conditions
    rates_N = _rates(kept, now.latency_price_lambda)
    rate_after = (
        now.latency_price_lambda
        if change.latency_price_lambda is None
        else change.latency_price_lambda
    )
    policies = (
        under(
            policy,
            Conditions(
                now.cost_model, delays[0].means(), latency_price_lambda=now.latency_price_lambda
            ),
        ),
        under(
            policy, Conditions(change.prices, delays[1].means(), latency_price_lambda=rate_after)
        ),
    )
    # where the change is about delays, decisions after it are made by mean delays
    alike = change.link is None and (
        change.latency_price_lambda is None or {change.latency_price_lambda} == set(rates_N)
    )
    replays = (
        Replay(at_hand, policies[0], delays[0], as_known=True, recorded_rate=True),
        Replay(
            at_hand,
            policies[1],
            delays[1],
            alike,
            recorded_rate=change.latency_price_lambda is None,
        ),
    )
    ms_lambda_before = _mean(rates_N)
    ms_lambda_after = (
        ms_lambda_before if change.latency_price_lambda is None else change.latency_price_lambda
    )
    before, after = ([replay.course(request) for request in kept] for replay in replays)
    # against a cloud that costs nothing there is no saving to speak of
    saving = min(now.cost_model.all_cloud, change.prices.all_cloud) > 0
    names, before_NM = _measures(before, now.cost_model, saving)
    _, after_NM = _measures(after, change.prices, saving)
    return WhatIf(
        requests=len(kept),
        left_out=left_out,
        reproduced=float(np.mean([replays[0].reproduces(request) for request in kept])),
        modelled_before=float(np.mean([course.modelled for course in before])),
        modelled_after=float(np.mean([course.modelled for course in after])),
        moved=float(np.mean([a.first is not b.first for a, b in zip(before, after, strict=True)])),
        booked_lambda=float(
            np.mean([sum(e.cost_lambda or 0.0 for e in request.path) for request in kept])
        ),
        prices_before=now.cost_model,
        prices_after=change.prices,
        delay_ms_before=delays[0].means(),
        delay_ms_after=delays[1].means(),
        ms_lambda_before=ms_lambda_before,
        ms_lambda_after=ms_lambda_after,
        measures=_compare(names, before_NM, after_NM, seed),
        notes=_notes(kept, at_hand, change, delays[1], rates_N),
    )


def _rates(kept: list[RequestTrace], today: float) -> list[float]:
    """The price of waiting that each request was decided at; today's where none is recorded."""
    known = [request.knew.latency_price_lambda if request.knew else None for request in kept]
    return [today if rate is None else rate for rate in known]


def _mean(rates_N: list[float]) -> float:
    # the mean of equal numbers is not always that number
    return rates_N[0] if len(set(rates_N)) == 1 else float(np.mean(rates_N))


def _layers(policy: CascadeRouting) -> dict[Tier, float]:
    """Layers that an answer of each tier runs in the mean, sure or not."""
    return {
        tier: float(row.mean()) for tier, row in zip(TIERS, policy.heads.layers_T2, strict=True)
    }


def _measures(courses: list[Course], prices: CostModel, saving: bool) -> tuple[list[str], Floats]:
    """``values_NM`` of each request, by name; all are means, so that one bootstrap serves all."""
    columns: dict[str, list[float]] = {}
    for index, tier in enumerate(TIERS):
        columns[f"{tier.value} asked first"] = [float(one.first is tier) for one in courses]
        columns[f"{tier.value} answers"] = [one.answered_T[index] for one in courses]
    columns["cost λ"] = [one.cost_lambda for one in courses]
    if saving:
        columns["saving"] = [1 - one.cost_lambda / prices.all_cloud for one in courses]
    columns["expected right"] = [one.right for one in courses]
    columns["latency ms"] = [one.latency_ms for one in courses]
    order = sorted(columns, key=_place)
    return order, np.array([columns[name] for name in order]).T


def _place(name: str) -> int:
    endings = (" asked first", " answers", "cost λ", "saving", "expected right", "latency ms")
    return next(i for i, ending in enumerate(endings) if name.endswith(ending))


def _compare(names: list[str], before_NM: Floats, after_NM: Floats, seed: int) -> list[Measure]:
    count = len(before_NM)
    # how often each request is drawn: the same draws for before, after and their difference
    weights_BN = np.random.default_rng(seed).multinomial(
        count, np.full(count, 1 / count), size=SAMPLES
    )
    tables = [before_NM, after_NM, after_NM - before_NM]
    found = [_intervals(table_NM, weights_BN / count) for table_NM in tables]
    return [Measure(name, *(column[i] for column in found)) for i, name in enumerate(names)]


def _intervals(table_NM: Floats, weights_BN: Floats) -> list[Interval]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low_M, high_M = np.percentile(weights_BN @ table_NM, (tail, 100 - tail), axis=0)
    return [
        Interval(float(mean), float(low), float(high))
        for mean, low, high in zip(table_NM.mean(0), low_M, high_M, strict=True)
    ]


def _notes(
    kept: list[RequestTrace], at_hand: AtHand, change: Change, delays: Delays, rates_N: list[float]
) -> list[str]:
    assert at_hand.value is not None
    now = at_hand.value.conditions.cost_model.all_cloud
    today = at_hand.value.conditions.latency_price_lambda
    notes = []
    if len(kept) < FEW:
        notes.append(f"{len(kept)} requests only: the intervals are rough")
    others = sum(
        1
        for request in kept
        if request.last.all_cloud_lambda is not None
        and abs(request.last.all_cloud_lambda - now) > 1e-6
    )
    if others:
        notes.append(f"{others} requests were booked at other prices than today's")
    if others := sum(rate != today for rate in rates_N):
        at = "that price" if change.latency_price_lambda is None else "that price before the change"
        notes.append(
            f"{others} requests were decided at another price of waiting than today's "
            f"{today:g} λ a ms, and are replayed at {at}"
        )
    if at_hand.certified:
        notes.append(
            "a mobile under its certificate decides at the certified prices, whatever prices are; "
            "after is what one without it would do"
        )
    rates_after = rates_N if change.latency_price_lambda is None else [change.latency_price_lambda]
    if change.link is not None and not any(rates_after):
        notes.append(
            "waiting has no price: the link changes latency and no decision; give --latency-price"
        )
    if delays.unmeasured:
        tiers = " and ".join(tier.value for tier in delays.unmeasured)
        notes.append(f"no answer of {tiers} was measured: its delay is inferred from the others'")
    return notes


def _nothing(left_out: dict[str, int], bundle_id: str) -> str:
    if not left_out:
        return (
            "the ledger holds no answered request of the policy cascade-routing; send some: "
            "dimee classify --policy cascade-routing 'a fine film'"
        )
    why = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    return (
        f"none of the last requests can be replayed with bundle {bundle_id} ({why}); give their "
        "bundle with --bundle, or send new ones"
    )
