"""Prices from a running testbed: milliseconds a layer and over each link, in λ of an edge layer."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from shared.domain import State, Tier
from shared.errors import DimeeError, TierFailed, from_payload
from shared.pricing.live_prices import LambdaPrices, PriceFile
from shared.wire import AttemptReport, ClassifyResponse

PATH = "/v1/classify"
WARM_UP = 5
"""Requests to each tier before those that count: connections are open and caches warm then."""
DEADLINE_MS = 20_000.0


@dataclass(frozen=True, slots=True)
class MeasuredTier:
    """Medians over the ``requests`` that one tier answered, each sent alone.

    ``layer_ms`` is compute time by the number of layers that ran, ``network_ms`` the round trip
    less what the tier reports of itself (0 on the mobile), ``last_layer`` the deepest exit that
    answered.
    """

    tier: Tier
    requests: int
    layer_ms: float
    compute_ms: float
    network_ms: float
    last_layer: int


def measure_tier(http: httpx.Client, tier: Tier, texts: Sequence[str]) -> MeasuredTier:
    """Send ``texts`` to one tier, one after the other, and take the medians of what is reported.

    Raises the error of the first request that the tier did not answer.
    """
    for text in texts[:WARM_UP]:
        _ask(http, tier, text)
    answers = [_ask(http, tier, text) for text in texts]
    layers = [one.exit_layer or 1 for one in answers]
    compute_ms = [one.compute_ms or 0.0 for one in answers]
    return MeasuredTier(
        tier,
        len(answers),
        statistics.median(ms / ran for ms, ran in zip(compute_ms, layers, strict=True)),
        statistics.median(compute_ms),
        statistics.median(one.network_ms or 0.0 for one in answers),
        max(layers),
    )


def _ask(http: httpx.Client, tier: Tier, text: str) -> AttemptReport:
    body = {"texts": [text], "policy": tier.value, "mode": "auto", "deadline_ms": DEADLINE_MS}
    try:
        response = http.post(PATH, json=body)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _no_gateway(http, str(error) or type(error).__name__) from None
    try:
        if response.status_code == httpx.codes.OK:
            item = ClassifyResponse.model_validate_json(response.content).items[0]
        else:
            payload = response.json()
    except ValueError:  # pydantic's is one too
        raise _no_gateway(http, f"status {response.status_code}, unknown format") from None
    if response.status_code != httpx.codes.OK:
        raise from_payload(payload, response.status_code)
    if item.result is None:
        raise from_payload({"error": item.error}, 500)
    first = item.result.attempts[0]
    if first.tier is not tier or first.state is not State.ANSWERED:
        raise TierFailed(
            f"the {tier} did not answer ({first.error_code or first.state.value}); its prices can "
            "only be measured while it does"
        )
    return first


def _no_gateway(http: httpx.Client, why: str) -> DimeeError:
    return DimeeError(f"no gateway answers at {http.base_url} ({why}); start a testbed: dimee up")


def measured_prices(
    measured: Mapping[Tier, MeasuredTier], cloud_fee: float | None = None
) -> LambdaPrices:
    """The prices in λ, where one λ is what a layer at the edge takes.

    Without ``cloud_fee``, γ is what the cloud's own layers cost: all l of them, in λ. Raises
    `DimeeError` where no time was measured at the edge.
    """
    edge_ms = measured[Tier.EDGE].layer_ms
    if edge_ms <= 0:
        raise DimeeError("the edge reports no compute time, by which all prices are divided")
    cloud = measured[Tier.CLOUD]
    if cloud_fee is None:
        cloud_fee = cloud.last_layer * cloud.layer_ms / edge_ms
    return LambdaPrices(
        mobile_layer=round(measured[Tier.MOBILE].layer_ms / edge_ms, 4),
        edge_layer=1.0,
        offload_edge=round(measured[Tier.EDGE].network_ms / edge_ms, 4),
        offload_cloud=round(cloud.network_ms / edge_ms, 4),
        cloud_fee=round(cloud_fee, 4),
    )


def price_file(
    measured: Mapping[Tier, MeasuredTier],
    links: Mapping[str, str],
    cloud_fee: float | None = None,
    now: datetime | None = None,
) -> PriceFile:
    """The price book of a measurement; its version names the minute, its note the links.

    ``links`` maps a tier to the words of the link that leads to it from the mobile. Waiting has no
    price in it: those of offloads are the links' milliseconds already.
    """
    now = now or datetime.now(UTC)
    over = ", ".join(f"{tier}={words}" for tier, words in links.items())
    edge_ms, cloud = measured[Tier.EDGE].layer_ms, measured[Tier.CLOUD]
    figures = ", ".join(
        f"{tier} {one.layer_ms:.3f} ms a layer and {one.network_ms:.3f} ms of network"
        for tier, one in measured.items()
    )
    fee = (
        f"γ is what the cloud's own {cloud.last_layer} layers cost"
        if cloud_fee is None
        else "γ was given with --cloud-fee"
    )
    return PriceFile(
        version=f"measured {now:%Y-%m-%dT%H:%MZ}",
        note=f"Medians of {cloud.requests} texts a tier, each sent alone: {figures}. "
        f"1 λ = {edge_ms:.3f} ms, a layer at the edge; {fee}."
        + (f" Links: {over}." if over else ""),
        latency_price_lambda=0.0,
        cost_model=measured_prices(measured, cloud_fee),
    )
