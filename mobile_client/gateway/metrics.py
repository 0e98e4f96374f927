"""``GET /metrics`` of the gateway: attempts, outbox, breakers, certificate and alarms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import get_args

from fastapi import FastAPI
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from mobile_client.gateway.attempt_metrics import AttemptTotals
from mobile_client.monitoring.health import AlarmKind, MobileHealth
from mobile_client.resilience.circuit_breaker import Readiness
from mobile_client.resilience.circuit_breaker import State as BreakerState
from mobile_client.resilience.concurrency_limit import AIMDLimiter
from mobile_client.service import MobileService
from shared.bundle.loading import tier_layers
from shared.domain import Tier
from shared.ledger.outbox_metrics import outbox_families
from shared.serving.metrics import serve_metrics
from shared.telemetry.metrics import (
    ScrapedState,
    gauge,
    labelled,
    new_registry,
    one_of,
)


def install_metrics(
    app: FastAPI, mobile: MobileService, limiter: AIMDLimiter, is_ready: Callable[[], bool]
) -> None:
    """Add ``GET /metrics`` to the gateway, unless its settings switch it off."""
    if mobile.settings.metrics == "off":
        return
    registry = new_registry()
    settings = mobile.settings
    layers = tier_layers(mobile.runtime.bundle, settings.mobile_layers, settings.edge_layers)
    totals = AttemptTotals(
        mobile.monitor.health().policy,
        {
            Tier.MOBILE: range(1, layers.mobile.last + 1),
            Tier.EDGE: range(1, layers.edge.last + 1),
            Tier.CLOUD: (layers.cloud.last,),
        },
    )
    mobile.recorder.on_end.append(totals.attempt_ended)
    mobile.on_request_end = totals.request_ended
    registry.register(ScrapedState(lambda: outbox_families(mobile.outbox, mobile.shipper)))

    def state() -> Iterable[Metric]:
        yield from totals.families()
        ready = is_ready() and mobile.outbox_report().recording != "refused"
        yield gauge("dimee_ready", "1 while the service accepts requests.", ready)
        yield gauge("dimee_calls_in_flight", "Calls in flight.", limiter.in_flight)
        yield gauge(
            "dimee_calls_in_flight_limit", "Calls that may be in flight now.", limiter.limit
        )
        readiness = {tier.value: state for tier, state in mobile.tier_readiness().items()}
        yield one_of(
            "dimee_tier_readiness",
            "1 for what is known of a tier now.",
            "state",
            get_args(Readiness),
            readiness,
        )
        yield from _health_families(mobile.monitor.health())
        certificate = mobile.runtime.guard.certificate
        if certificate is not None and certificate.expires is not None:
            yield gauge(
                "dimee_certificate_expiry_timestamp_seconds",
                "Time at which the certificate's prices expire, in seconds since 1970.",
                certificate.expires.timestamp(),
            )

    serve_metrics(app, registry, state)


def _health_families(health: MobileHealth) -> Iterable[Metric]:
    yield one_of(
        "dimee_circuit_breaker_state",
        "1 for the present state of a tier's circuit breaker.",
        "state",
        get_args(BreakerState),
        health.breakers,
    )
    yield gauge(
        "dimee_certificate_in_force",
        "1 if the answers have a certificate that is not refuted.",
        health.certificate_id is not None and not health.degraded,
    )
    yield gauge(
        "dimee_degraded",
        "1 while an alarm sends every request to the cloud.",
        health.degraded,
    )
    active = {alarm.kind for alarm in health.alarms}
    yield labelled(
        GaugeMetricFamily("dimee_alarm_active", "1 while an alarm is raised.", labels=("kind",)),
        {(kind,): float(kind in active) for kind in get_args(AlarmKind)},
    )
    audits = health.audits
    yield labelled(
        CounterMetricFamily(
            "dimee_audits_total",
            "Audited answers by their comparison with the cloud's answer.",
            labels=("result",),
        ),
        {
            ("same",): audits.seen - audits.differ,
            ("different",): audits.differ,
            ("failed",): audits.failed,
            ("dropped",): audits.dropped,
        },
    )
    yield gauge("dimee_audits_waiting", "Audits that are not sent yet.", audits.waiting)
