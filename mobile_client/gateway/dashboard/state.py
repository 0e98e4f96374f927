"""State of the gateway for its page: task, policies, prices, tiers and their breakers."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mobile_client.gateway.examples import example_texts
from mobile_client.options import MODES
from mobile_client.service import MobileService
from shared.bundle.loading import tier_layers
from shared.domain import Tier
from shared.policies import POLICY_NAMES
from shared.policies.loading import installed_names
from shared.wire import BundleDescription

SAMPLES = 20
"""Most sample texts that the page offers."""


def fixed_state(mobile: MobileService, description: BundleDescription) -> dict[str, Any]:
    """Return what does not change while the process runs."""
    settings, bundle = mobile.settings, mobile.runtime.bundle
    layers = tier_layers(bundle, settings.mobile_layers, settings.edge_layers)
    return {
        "task": description.task,
        "pair": description.pairs,
        "labels": description.labels,
        "samples": [asdict(sample) for sample in example_texts(description, SAMPLES)],
        "bundle_id": description.bundle_id,
        "policy": mobile.runtime.request_options.policy,
        "policies": _policies(mobile),
        "modes": list(MODES),
        "mode": settings.mode,
        "deadline_ms": settings.deadline_ms,
        "layers": {
            tier.value: {"first_layer": 1, "last_layer": last}
            for tier, last in (
                (Tier.MOBILE, layers.mobile.last),
                (Tier.EDGE, layers.edge.last),
                (Tier.CLOUD, layers.cloud.last),
            )
        },
        "alpha": bundle.manifest.alpha,
        "certificate_id": mobile.runtime.guard.certificate_id,
        "docs_url": "/docs",
        "version": _version(),
    }


def _policies(mobile: MobileService) -> list[str]:
    names = [*POLICY_NAMES, *installed_names()]
    if mobile.runtime.bundle.correctness_heads() is None:
        names.remove("cascade-routing")
    in_use = str(mobile.runtime.request_options.policy)
    return names if in_use in names else [in_use, *names]


def _version() -> str:
    try:
        return version("dimee")
    except PackageNotFoundError:
        return "unknown"


def prices(mobile: MobileService) -> dict[str, Any]:
    """Return the prices in force, in λ and in money."""
    live = mobile.runtime.live_prices
    model, book = live.cost_model, asdict(live.book)
    waiting = mobile.runtime.tier_stats.conditions.latency_price_lambda
    return {
        "book": book.pop("version"),
        "gamma": model.cloud_fee,
        **asdict(model),
        "all_cloud_lambda": model.all_cloud,
        "latency_price_lambda": waiting,
        **book,
    }


def tiers(mobile: MobileService) -> dict[str, dict[str, str | None]]:
    """Return what is known of each tier, and the state of its circuit breaker."""
    readiness = mobile.tier_readiness()
    tier_stats = mobile.runtime.tier_stats
    states: dict[str, dict[str, str | None]] = {
        tier.value: {
            "ready": readiness.get(tier, "not used"),
            "breaker": tier_stats.breaker_state(tier),
        }
        for tier in tier_stats.replicas
    }
    return {Tier.MOBILE.value: {"ready": "ready", "breaker": None}} | states


def ledger_problem(mobile: MobileService) -> str | None:
    """Return why entries do not reach the ledger or are not recorded; None if they are."""
    undelivered = mobile.undelivered()
    return mobile.outbox_report().problem if undelivered is None else undelivered.sentence()


def alarms(mobile: MobileService) -> list[dict[str, Any]]:
    """Return the alarms of the certificate's monitor."""
    return [alarm.model_dump(mode="json") for alarm in mobile.monitor.health().alarms]
