"""Prices of layers and links in λ, from times that a running testbed reports."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from mobile_client.gateway.examples import classify_body
from shared.domain import InputText, State, Tier
from shared.errors import DimeeError, TierFailed, from_payload
from shared.http_fetch import fetch, json_of
from shared.pricing.live_prices import LambdaPrices, PriceFile
from shared.redaction import without_credentials
from shared.wire import AttemptReport, ClassifyResponse

PATH = "/v1/classify"
WARM_UP = 5
"""Requests to each tier that are not counted: they open connections and fill caches."""
DEADLINE_MS = 20_000.0


@dataclass(frozen=True, slots=True)
class MeasuredTier:
    """Medians over the ``requests`` that one tier answered, one at a time.

    ``layer_ms`` is the compute time divided by the number of executed layers, ``network_ms`` the
    round trip less the time that the tier reports (0 on the mobile), ``last_layer`` the deepest
    exit layer of all answers.
    """

    tier: Tier
    requests: int
    layer_ms: float
    compute_ms: float
    network_ms: float
    last_layer: int


def measure_tier(http: httpx.Client, tier: Tier, texts: Sequence[InputText]) -> MeasuredTier:
    """Send ``texts`` to one tier, one after the other, and return medians of the reported times.

    Raises the error of the first request that the tier did not answer.
    """
    for text in texts[:WARM_UP]:
        _classify(http, tier, text)
    answers = [_classify(http, tier, text) for text in texts]
    layers = [answer.exit_layer or 1 for answer in answers]
    compute_ms = [answer.compute_ms or 0.0 for answer in answers]
    return MeasuredTier(
        tier,
        len(answers),
        statistics.median(ms / count for ms, count in zip(compute_ms, layers, strict=True)),
        statistics.median(compute_ms),
        statistics.median(answer.network_ms or 0.0 for answer in answers),
        max(layers),
    )


def _classify(http: httpx.Client, tier: Tier, text: InputText) -> AttemptReport:
    body = classify_body([text]) | {
        "policy": tier.value,
        "mode": "auto",
        "deadline_ms": DEADLINE_MS,
    }
    try:
        response = fetch(http, "POST", PATH, json=body)
    except httpx.HTTPError as error:
        raise _gateway_error(http, str(error) or type(error).__name__) from None
    if response.status_code != httpx.codes.OK:
        raise from_payload(json_of(response), response.status_code)
    try:
        (item,) = ClassifyResponse.model_validate_json(response.content).items
    except ValueError:  # also pydantic's ValidationError, and another number of items
        raise _gateway_error(http, f"status {response.status_code}, unknown format") from None
    if item.result is None:
        raise from_payload({"error": item.error}, 500)
    first = next(iter(item.result.attempts), None)
    if first is None:
        raise _gateway_error(http, "it reports no attempt")
    if first.tier is not tier or first.state is not State.ANSWERED:
        raise TierFailed(
            f"the {tier} did not answer ({first.error_code or first.state.value}); "
            "start it, and measure again"
        )
    return first


def _gateway_error(http: httpx.Client, reason: str) -> DimeeError:
    return DimeeError(
        f"no gateway answers at {without_credentials(str(http.base_url))} ({reason}); start a "
        "testbed: dimee up"
    )


def measured_prices(
    measured: Mapping[Tier, MeasuredTier], cloud_fee: float | None = None
) -> LambdaPrices:
    """Return the prices in λ; one λ is the time of one layer on the edge.

    Without ``cloud_fee``, γ is the cost of all layers of the cloud. Raises `DimeeError` if the edge
    reported no compute time.
    """
    edge_ms = measured[Tier.EDGE].layer_ms
    if edge_ms <= 0:
        raise DimeeError(
            "the edge reported no compute time, the unit of all prices; send it more texts"
        )
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
    """Return the price book of a measurement; its version is the minute, its note the figures.

    ``links`` maps a tier to the link that leads to it from the mobile. Waiting costs nothing in
    this book, since its offload prices already contain the time on the links.
    """
    now = now or datetime.now(UTC)
    link_list = ", ".join(f"{tier}={link}" for tier, link in links.items())
    edge_ms, cloud = measured[Tier.EDGE].layer_ms, measured[Tier.CLOUD]
    figures = ", ".join(
        f"{tier} {row.layer_ms:.3f} ms a layer and {row.network_ms:.3f} ms of network"
        for tier, row in measured.items()
    )
    fee = (
        f"γ is the cost of the cloud's own {cloud.last_layer} layers"
        if cloud_fee is None
        else "γ is the value of --cloud-fee"
    )
    return PriceFile(
        version=f"measured {now:%Y-%m-%dT%H:%MZ}",
        note=f"Medians of {cloud.requests} texts a tier, sent one at a time: {figures}. "
        f"1 λ = {edge_ms:.3f} ms, one layer on the edge; {fee}."
        + (f" Links: {link_list}." if link_list else ""),
        latency_price_lambda=0.0,
        cost_model=measured_prices(measured, cloud_fee),
    )
