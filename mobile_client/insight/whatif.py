"""Comparison of the last requests at present prices with a scenario, with intervals.

Shape suffixes: N requests, M measures, B bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mobile_client.insight.delays import Delays
from mobile_client.insight.replay import (
    Replay,
    ReplayContext,
    ReplayedRequest,
    replayable,
    with_conditions,
)
from mobile_client.insight.request_trace import RequestTrace
from shared.bundle.correctness_heads import MIN_HEAD_EXAMPLES, TIERS
from shared.domain import Tier
from shared.errors import InvalidInput, NotFound
from shared.labels import counted
from shared.link_profiles import Link
from shared.policies.cascade_routing import CascadeRouting
from shared.policies.conditions import Conditions
from shared.pricing.cost_model import CostModel

Floats = NDArray[np.float64]
BOOTSTRAP_SAMPLES = 2_000
CONFIDENCE = 0.95
MIN_REQUESTS = 30
"""With fewer requests, the report notes that the intervals are rough."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Prices in λ, link and price of waiting one millisecond (in λ) to compare with.

    Without ``link`` the measured delays apply; without ``latency_price_lambda`` each request keeps
    the price of waiting of its recorded decision.
    """

    prices: CostModel
    link: Link | None = None
    latency_price_lambda: float | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """Mean over the requests and its 95 % bootstrap interval (`BOOTSTRAP_SAMPLES`)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure before and after; ``change`` is the mean of the differences by request."""

    name: str
    before: Interval
    after: Interval
    change: Interval


@dataclass(frozen=True, slots=True)
class WhatIfReport:
    """The comparison, at present prices (before) and in the scenario (after).

    - ``left_out``: number of requests that could not be replayed, by reason.
    - ``reproduced``: share of requests for which the replay makes the recorded decisions. It uses
      present prices in λ, and the recorded delays and prices of waiting.
    - ``modelled_*``: share of requests whose answer was not recorded and is the policy's
      expectation. ``rerouted``: share of requests with another first tier.
    - ``recorded_lambda``: mean recorded cost of a request, failed attempts included.
    - ``latency_price_*``: price of waiting that decisions used, the mean if they differ.
    """

    requests: int
    left_out: dict[str, int]
    reproduced: float
    modelled_before: float
    modelled_after: float
    rerouted: float
    recorded_lambda: float
    prices_before: CostModel
    prices_after: CostModel
    delay_ms_before: dict[Tier, float]
    delay_ms_after: dict[Tier, float]
    latency_price_before: float
    latency_price_after: float
    measures: list[Measure]
    notes: list[str] = field(default_factory=list)


def what_if(
    requests: Sequence[RequestTrace], context: ReplayContext, scenario: Scenario, seed: int = 0
) -> WhatIfReport:
    """Replay the requests at present prices and in ``scenario``.

    Raises `InvalidInput` if the bundle has no correctness heads, and `NotFound` if no request can
    be replayed.
    """
    policy = context.policy
    if policy is None:
        raise InvalidInput(
            f"bundle: dimee whatif replays the policy {CascadeRouting.name}, for which this bundle "
            f"has no correctness heads; train and export with at least {MIN_HEAD_EXAMPLES} "
            "validation examples, or see what other tiers would have cost with dimee explain"
        )
    replayed, left_out = replayable(requests, context.bundle.bundle_id)
    if not replayed:
        raise NotFound(_no_requests(left_out, context.bundle.bundle_id))
    layers = _layers(policy)
    delays = Delays(replayed, layers), Delays(replayed, layers, scenario.link)
    now = policy.conditions
    latency_prices_N = _recorded_latency_prices(replayed, now.latency_price_lambda)
    latency_price = (
        now.latency_price_lambda
        if scenario.latency_price_lambda is None
        else scenario.latency_price_lambda
    )
    policies = (
        with_conditions(
            policy,
            Conditions(
                now.cost_model, delays[0].means_ms(), latency_price_lambda=now.latency_price_lambda
            ),
        ),
        with_conditions(
            policy,
            Conditions(scenario.prices, delays[1].means_ms(), latency_price_lambda=latency_price),
        ),
    )
    # a scenario that changes the delays decides by mean delays, not by each request's own
    same_delays = scenario.link is None and (
        scenario.latency_price_lambda is None
        or {scenario.latency_price_lambda} == set(latency_prices_N)
    )
    replays = (
        Replay(
            context,
            policies[0],
            delays[0],
            use_recorded_delays=True,
            use_recorded_latency_price=True,
        ),
        Replay(
            context,
            policies[1],
            delays[1],
            same_delays,
            use_recorded_latency_price=scenario.latency_price_lambda is None,
        ),
    )
    latency_price_before = _mean(latency_prices_N)
    latency_price_after = (
        latency_price_before
        if scenario.latency_price_lambda is None
        else scenario.latency_price_lambda
    )
    before, after = ([replay.run(request) for request in replayed] for replay in replays)
    # a saving is undefined against a cloud that costs nothing
    saving = min(now.cost_model.all_cloud, scenario.prices.all_cloud) > 0
    names, before_NM = _measures(before, now.cost_model, saving)
    _, after_NM = _measures(after, scenario.prices, saving)
    return WhatIfReport(
        requests=len(replayed),
        left_out=left_out,
        reproduced=float(np.mean([replays[0].reproduces(request) for request in replayed])),
        modelled_before=float(np.mean([result.modelled for result in before])),
        modelled_after=float(np.mean([result.modelled for result in after])),
        rerouted=float(
            np.mean([a.first is not b.first for a, b in zip(before, after, strict=True)])
        ),
        recorded_lambda=float(
            np.mean([sum(e.cost_lambda or 0.0 for e in request.path) for request in replayed])
        ),
        prices_before=now.cost_model,
        prices_after=scenario.prices,
        delay_ms_before=delays[0].means_ms(),
        delay_ms_after=delays[1].means_ms(),
        latency_price_before=latency_price_before,
        latency_price_after=latency_price_after,
        measures=_compare(names, before_NM, after_NM, seed),
        notes=_notes(replayed, context, scenario, delays[1], latency_prices_N),
    )


def _recorded_latency_prices(requests: list[RequestTrace], today: float) -> list[float]:
    """Return each request's recorded price of waiting; the present one if none is recorded."""
    recorded = [
        request.decision.latency_price_lambda if request.decision else None for request in requests
    ]
    return [today if rate is None else rate for rate in recorded]


def _mean(latency_prices_N: list[float]) -> float:
    # the computed mean of equal numbers may differ from them
    return (
        latency_prices_N[0] if len(set(latency_prices_N)) == 1 else float(np.mean(latency_prices_N))
    )


def _layers(policy: CascadeRouting) -> dict[Tier, float]:
    """Return the mean number of layers of an answer of each tier."""
    return {
        tier: float(row.mean()) for tier, row in zip(TIERS, policy.heads.layers_T2, strict=True)
    }


def _measures(
    replayed: list[ReplayedRequest], prices: CostModel, saving: bool
) -> tuple[list[str], Floats]:
    """Return the names and ``values_NM`` of the measures of each request."""
    columns: dict[str, list[float]] = {}
    for index, tier in enumerate(TIERS):
        columns[f"{tier.value} asked first"] = [float(result.first is tier) for result in replayed]
        columns[f"{tier.value} answers"] = [result.answered_T[index] for result in replayed]
    columns["cost λ"] = [result.cost_lambda for result in replayed]
    if saving:
        columns["saving"] = [1 - result.cost_lambda / prices.all_cloud for result in replayed]
    columns["expected accuracy"] = [result.right for result in replayed]
    columns["latency ms"] = [result.latency_ms for result in replayed]
    order = sorted(columns, key=_position)
    return order, np.array([columns[name] for name in order]).T


def _position(name: str) -> int:
    endings = (" asked first", " answers", "cost λ", "saving", "expected accuracy", "latency ms")
    return next(i for i, ending in enumerate(endings) if name.endswith(ending))


def _compare(names: list[str], before_NM: Floats, after_NM: Floats, seed: int) -> list[Measure]:
    count = len(before_NM)
    # number of times that each request is drawn, equal for before, after and their difference
    weights_BN = np.random.default_rng(seed).multinomial(
        count, np.full(count, 1 / count), size=BOOTSTRAP_SAMPLES
    )
    tables = [before_NM, after_NM, after_NM - before_NM]
    intervals = [_intervals(table_NM, weights_BN / count) for table_NM in tables]
    return [Measure(name, *(column[i] for column in intervals)) for i, name in enumerate(names)]


def _intervals(table_NM: Floats, weights_BN: Floats) -> list[Interval]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low_M, high_M = np.percentile(weights_BN @ table_NM, (tail, 100 - tail), axis=0)
    return [
        Interval(float(mean), float(low), float(high))
        for mean, low, high in zip(table_NM.mean(0), low_M, high_M, strict=True)
    ]


def _notes(
    requests: list[RequestTrace],
    context: ReplayContext,
    scenario: Scenario,
    delays: Delays,
    latency_prices_N: list[float],
) -> list[str]:
    assert context.policy is not None
    now = context.policy.conditions.cost_model.all_cloud
    today = context.policy.conditions.latency_price_lambda
    notes = []
    if len(requests) < MIN_REQUESTS:
        notes.append(f"only {counted(len(requests), 'request')}: the intervals are rough")
    others = sum(
        1
        for request in requests
        if request.last.all_cloud_lambda is not None
        and abs(request.last.all_cloud_lambda - now) > 1e-6
    )
    if others:
        notes.append(f"{others} requests were recorded at other prices than the present ones")
    if others := sum(rate != today for rate in latency_prices_N):
        scope = "" if scenario.latency_price_lambda is None else " before the change"
        notes.append(
            f"{others} requests were decided at another price of waiting than the present "
            f"{today:g} λ a ms, and are replayed at their own price{scope}"
        )
    if context.certified:
        notes.append(
            "a mobile with a certificate decides at the certified prices; the scenario shows a "
            "mobile without a certificate"
        )
    rates_after = (
        latency_prices_N
        if scenario.latency_price_lambda is None
        else [scenario.latency_price_lambda]
    )
    if scenario.link is not None and not any(rates_after):
        notes.append(
            "waiting has no price, so the link changes latency but no decision; "
            "give --latency-price"
        )
    if delays.unmeasured:
        tiers = " and ".join(tier.value for tier in delays.unmeasured)
        notes.append(
            f"no answer of {tiers} was recorded: its delay is estimated from the other tiers"
        )
    return notes


def _no_requests(left_out: dict[str, int], bundle_id: str) -> str:
    if not left_out:
        return (
            "the ledger holds no answered request of the policy cascade-routing; send some: "
            "dimee classify --policy cascade-routing 'a fine film'"
        )
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
    return (
        f"none of the last requests can be replayed with bundle {bundle_id} ({reasons}); give "
        "their bundle with --bundle, or send new requests"
    )
