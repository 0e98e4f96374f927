"""Prometheus metrics of the gateway: requests, attempts, cost, breakers, certificate, alarms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import get_args

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from mobile_client.monitoring.health import AlarmKind, MobileHealth
from mobile_client.resilience.circuit_breaker import Readiness
from mobile_client.resilience.circuit_breaker import State as BreakerState
from mobile_client.resilience.concurrency_limit import AIMDLimiter
from mobile_client.service import MobileService
from shared.domain import Reason, State, Tier
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox_metrics import outbox_families
from shared.serving.metrics import serve_metrics
from shared.telemetry.metrics import (
    ENDS,
    LATENCY_BUCKETS_S,
    BoundedLabel,
    ScrapedState,
    gauge,
    labelled,
    new_registry,
    one_of,
)

DECISION_BUCKETS_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05)
"""Upper bounds in seconds of the time in which a policy decides."""
DURATIONS = {
    "queue": ("queue_ms", "Time of an answered attempt in the tier's queue and shared batches."),
    "compute": ("compute_ms", "An answered attempt's share of the layers' time."),
    "network": ("network_ms", "Round trip of an answered attempt minus the tier's time."),
    "round_trip": ("round_trip_ms", "Time from sending an attempt to its answer."),
}
"""Name of a histogram → field of `LedgerEntry`, and the meaning."""


class _AttemptSeries:
    """Time series of the attempts of one tier and reason."""

    def __init__(self, metrics: GatewayMetrics, tier: str, reason: str) -> None:
        labels = (tier, reason)
        self.results = {state: metrics.attempts.labels(tier, reason, state.value) for state in ENDS}
        self.durations = [
            (field, metrics.durations[name].labels(tier)) for name, (field, _) in DURATIONS.items()
        ]
        self.cost_lambda = metrics.cost_lambda.labels(*labels)
        self.cost_usd = metrics.cost_usd.labels(*labels)
        self.energy_joules = metrics.energy_joules.labels(*labels)
        self.sent_bytes = metrics.sent_bytes.labels(*labels)
        self.received_bytes = metrics.received_bytes.labels(*labels)


class GatewayMetrics:
    """Counts attempts and requests, each when it has ended, as the ledger's summary does.

    Audits are attempts with their own ``reason``; the histograms leave them out.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(name, meaning, labels, registry=registry)

        def histogram(
            name: str,
            meaning: str,
            *labels: str,
            buckets_s: tuple[float, ...] = LATENCY_BUCKETS_S,
        ) -> Histogram:
            return Histogram(name, meaning, labels, registry=registry, buckets=buckets_s)

        by_reason = ("tier", "reason")
        self.requests = counter(
            "dimee_requests_total", "Requests that ended, by policy and result.", "policy", "result"
        )
        self.answers = counter(
            "dimee_answers_total",
            "Answered requests by tier, exit layer, and reason of the attempt that answered.",
            *("tier", "exit_layer", "reason"),
        )
        self.degraded = counter(
            "dimee_degraded_requests_total",
            "Requests that ended while the certificate was known not to hold.",
        )
        self.attempts = counter(
            "dimee_attempts_total",
            "Attempts that ended, by tier, reason and result.",
            *(*by_reason, "result"),
        )
        self.cost_lambda = counter(
            "dimee_cost_lambda_total", "Cost of the attempts in λ.", *by_reason
        )
        self.all_cloud = counter(
            "dimee_all_cloud_cost_lambda_total",
            "Cost in λ of the same requests if the cloud had answered all of them.",
        )
        self.cost_usd = counter(
            "dimee_cost_usd_total", "Cost of the attempts in US dollars.", *by_reason
        )
        self.energy_joules = counter(
            "dimee_mobile_energy_joules_total", "Energy of the mobile in joules.", *by_reason
        )
        self.sent_bytes = counter(
            "dimee_sent_bytes_total", "Bytes sent to the tiers, with headers.", *by_reason
        )
        self.received_bytes = counter(
            "dimee_received_bytes_total", "Bytes received from the tiers, with headers.", *by_reason
        )
        self.durations = {
            name: histogram(f"dimee_attempt_{name}_seconds", meaning, "tier")
            for name, (_, meaning) in DURATIONS.items()
        }
        self.decision = histogram(
            "dimee_decision_seconds",
            "Time in which the policy decided.",
            buckets_s=DECISION_BUCKETS_S,
        )
        self.request_s = histogram(
            "dimee_request_seconds",
            "Time of a request with all its attempts, by the tier that answered, or none.",
            "tier",
        )
        self._policy = BoundedLabel()
        # all of them begin at zero, so that the first attempt of a kind is seen as an increase
        self._series: dict[tuple[Tier, Reason], _AttemptSeries] = {
            (tier, reason): _AttemptSeries(self, tier.value, reason.value)
            for tier in Tier
            for reason in Reason
        }
        self._requests: dict[tuple[str | None, State], Counter] = {}
        self._answers: dict[tuple[str, int | None, Reason | None], Counter] = {}
        self._request_s: dict[str, Histogram] = {}

    def attempt_ended(self, entry: LedgerEntry) -> None:
        """Count an attempt from its caller's entry."""
        if entry.reason is None:  # only the tier's entries have none
            return
        series = self._series[entry.tier, entry.reason]
        series.results[entry.state].inc()
        series.cost_lambda.inc(entry.cost_lambda or 0.0)
        series.cost_usd.inc(entry.cost_usd or 0.0)
        series.energy_joules.inc((entry.energy_mj or 0.0) / 1e3)
        series.sent_bytes.inc(entry.sent_bytes)
        series.received_bytes.inc(entry.received_bytes)
        if entry.reason is Reason.AUDIT:
            return
        if entry.state is State.ANSWERED:
            for field, observed in series.durations:
                value_ms = getattr(entry, field)
                if value_ms is not None:
                    observed.observe(value_ms / 1e3)
        if entry.decision_ms is not None:
            self.decision.observe(entry.decision_ms / 1e3)
        if entry.final:
            self._request_ended(entry)

    def _request_ended(self, entry: LedgerEntry) -> None:
        self.all_cloud.inc(entry.all_cloud_lambda or 0.0)
        if entry.degraded:
            self.degraded.inc()
        request = entry.policy, entry.state
        requests = self._requests.get(request)
        if requests is None:
            policy = self._policy(_text(entry.policy))
            requests = self.requests.labels(policy, entry.state.value)
            if policy == entry.policy:
                self._requests[request] = requests
        requests.inc()
        if entry.state is not State.ANSWERED:
            return
        answer = entry.tier, entry.exit_layer, entry.reason
        answers = self._answers.get(answer)
        if answers is None:
            answers = self.answers.labels(
                entry.tier.value, str(entry.exit_layer), _text(entry.reason)
            )
            self._answers[answer] = answers
        answers.inc()

    def request_ended(self, tier: str, seconds: float) -> None:
        """Record the time of a request that ``tier`` answered ("none": no tier did)."""
        observed = self._request_s.get(tier)
        if observed is None:
            observed = self._request_s[tier] = self.request_s.labels(tier)
        observed.observe(seconds)


def _text(value: str | None) -> str:
    return "none" if value is None else str(value)


def install_metrics(
    app: FastAPI, mobile: MobileService, limiter: AIMDLimiter, is_ready: Callable[[], bool]
) -> None:
    """Add ``GET /metrics`` to the gateway, unless its settings switch it off."""
    if mobile.settings.metrics == "off":
        return
    registry = new_registry("mobile")
    metrics = GatewayMetrics(registry)
    mobile.recorder.on_end.append(metrics.attempt_ended)
    mobile.on_request_end = metrics.request_ended
    registry.register(ScrapedState(lambda: outbox_families(mobile.outbox, mobile.shipper)))

    def state() -> Iterable[Metric]:
        yield gauge("dimee_ready", "1 while the service accepts requests.", is_ready())
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
