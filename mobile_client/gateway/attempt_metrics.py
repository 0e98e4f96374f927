"""Metrics of requests and attempts, counted from the caller's ledger entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product

from prometheus_client.core import CounterMetricFamily, Metric

from shared.domain import Reason, State, Tier
from shared.ledger.entry import LedgerEntry
from shared.telemetry.metrics import ENDS, BoundedLabel, counter, labelled
from shared.telemetry.totals import Batch, Durations, histogram

DECISION_BUCKETS_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05)
"""Upper bounds in seconds of the time in which a policy decides."""
_ANSWERING = (Reason.ROUTE, Reason.ESCALATE, Reason.FAIL_OVER)
UNKNOWN_REPLICA = "unknown"
"""Label of an attempt without a response, at an address of which no replica is known."""
NO_TIER = "none"
"""Label of a request that no tier answered."""


@dataclass(slots=True)
class _ByReason:
    """Totals of the attempts of one tier and reason."""

    results: dict[State, int] = field(default_factory=lambda: dict.fromkeys(ENDS, 0))
    cost_lambda: float = 0.0
    cost_usd: float = 0.0
    energy_mj: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0


@dataclass(slots=True)
class _ByTier:
    """Durations of the answered attempts of one tier."""

    queue: Durations = field(default_factory=Durations)
    compute: Durations = field(default_factory=Durations)
    network: Durations = field(default_factory=Durations)
    round_trip: Durations = field(default_factory=Durations)


_SUMS: tuple[tuple[str, str, Callable[[_ByReason], float]], ...] = (
    ("dimee_cost_lambda_total", "Cost of the attempts in λ.", lambda one: one.cost_lambda),
    ("dimee_cost_usd_total", "Cost of the attempts in US dollars.", lambda one: one.cost_usd),
    (
        "dimee_mobile_energy_joules_total",
        "Energy of the mobile in joules.",
        lambda one: one.energy_mj / 1e3,
    ),
    (
        "dimee_sent_bytes_total",
        "Bytes sent to the tiers, with headers.",
        lambda one: one.sent_bytes,
    ),
    (
        "dimee_received_bytes_total",
        "Bytes received from the tiers, with headers.",
        lambda one: one.received_bytes,
    ),
)
_DURATIONS: tuple[tuple[str, str, Callable[[_ByTier], Durations]], ...] = (
    (
        "dimee_attempt_queue_seconds",
        "Time of an answered attempt in the tier's queue and in shared batches.",
        lambda one: one.queue,
    ),
    (
        "dimee_attempt_compute_seconds",
        "An answered attempt's share of the layers' time.",
        lambda one: one.compute,
    ),
    (
        "dimee_attempt_network_seconds",
        "Round trip of an answered attempt minus the tier's time.",
        lambda one: one.network,
    ),
    (
        "dimee_attempt_round_trip_seconds",
        "Time from sending an attempt to its answer.",
        lambda one: one.round_trip,
    ),
)


class AttemptTotals:
    """Totals of attempts and requests, with the same meanings as the ledger's summary.

    Audits are attempts with their own ``reason``; histograms and requests leave them out. Series
    begin at zero, so that the first attempt of a kind is seen as an increase: those of every tier
    and reason, of ``default_policy``, and of the tiers' usual ``exit_layers``. For use in one event
    loop.
    """

    def __init__(self, default_policy: str, exit_layers: Mapping[Tier, Iterable[int]]) -> None:
        self._by_reason = {(tier, reason): _ByReason() for tier in Tier for reason in Reason}
        self._by_tier = {tier: _ByTier() for tier in Tier}
        self._decision = Durations(DECISION_BUCKETS_S)
        self._requests: Counter[tuple[str, ...]] = Counter()
        self._answers: Counter[tuple[str, ...]] = Counter()
        self._request_s = {tier: Durations() for tier in (*map(str, Tier), NO_TIER)}
        self._all_cloud_lambda = 0.0
        self._degraded = 0
        self._policy = BoundedLabel()
        self._replica = BoundedLabel()
        self._by_replica: Counter[tuple[str, ...]] = Counter()
        self._batch = Batch(self._count)
        self._add_policy(default_policy)
        for tier, layers in exit_layers.items():
            for layer, reason in product(layers, _ANSWERING):
                self._answers[tier.value, str(layer), reason.value] = 0

    def attempt_ended(self, entry: LedgerEntry) -> None:
        """Count an attempt by its caller's entry."""
        self._batch.add(entry)

    def request_ended(self, tier: Tier | None, seconds: float) -> None:
        """Count the time of a request that ``tier`` answered, or no tier."""
        self._request_s[NO_TIER if tier is None else tier.value].add(seconds)

    def _count(self, entry: LedgerEntry) -> None:
        if entry.reason is None:  # only the tier's entries have none
            return
        totals = self._by_reason[entry.tier, entry.reason]
        totals.results[entry.state] += 1
        totals.cost_lambda += entry.cost_lambda or 0.0
        totals.cost_usd += entry.cost_usd or 0.0
        totals.energy_mj += entry.energy_mj or 0.0
        totals.sent_bytes += entry.sent_bytes
        totals.received_bytes += entry.received_bytes
        if entry.tier is not Tier.MOBILE:
            replica = UNKNOWN_REPLICA if entry.replica is None else self._replica(entry.replica)
            self._by_replica[entry.tier.value, replica, entry.state.value] += 1
        if entry.reason is Reason.AUDIT:
            return
        if entry.state is State.ANSWERED:
            times = self._by_tier[entry.tier]
            for durations, value_ms in (
                (times.queue, entry.queue_ms),
                (times.compute, entry.compute_ms),
                (times.network, entry.network_ms),
                (times.round_trip, entry.round_trip_ms),
            ):
                if value_ms is not None:
                    durations.add(value_ms / 1e3)
        if entry.decision_ms is not None:
            self._decision.add(entry.decision_ms / 1e3)
        if entry.final:
            self._count_request(entry)

    def _count_request(self, entry: LedgerEntry) -> None:
        self._all_cloud_lambda += entry.all_cloud_lambda or 0.0
        self._degraded += bool(entry.degraded)
        policy = self._policy(str(entry.policy))
        if (policy, entry.state.value) not in self._requests:
            self._add_policy(policy)
        self._requests[policy, entry.state.value] += 1
        if entry.state is State.ANSWERED:
            self._answers[entry.tier.value, str(entry.exit_layer), str(entry.reason)] += 1

    def _add_policy(self, policy: str) -> None:
        self._requests.update({(self._policy(policy), state.value): 0 for state in ENDS})

    def families(self) -> Iterable[Metric]:
        """Yield the metrics of all attempts that have ended."""
        self._batch.flush()
        yield labelled(
            CounterMetricFamily(
                "dimee_requests_total",
                "Requests that ended, by policy and result.",
                labels=("policy", "result"),
            ),
            self._requests,
        )
        yield labelled(
            CounterMetricFamily(
                "dimee_answers_total",
                "Answered requests by tier, exit layer, and reason of the attempt that answered.",
                labels=("tier", "exit_layer", "reason"),
            ),
            self._answers,
        )
        yield counter(
            "dimee_degraded_requests_total",
            "Requests that ended while the certificate was known not to hold.",
            self._degraded,
        )
        yield counter(
            "dimee_all_cloud_cost_lambda_total",
            "Cost in λ of the same requests if the cloud had answered all of them.",
            self._all_cloud_lambda,
        )
        yield labelled(
            CounterMetricFamily(
                "dimee_attempts_total",
                "Attempts that ended, by tier, reason and result.",
                labels=("tier", "reason", "result"),
            ),
            {
                (tier.value, reason.value, state.value): count
                for (tier, reason), totals in self._by_reason.items()
                for state, count in totals.results.items()
            },
        )
        yield labelled(
            CounterMetricFamily(
                "dimee_replica_attempts_total",
                "Attempts that ended, by tier, replica and result.",
                labels=("tier", "replica", "result"),
            ),
            self._by_replica,
        )
        for name, meaning, sum_of in _SUMS:
            yield labelled(
                CounterMetricFamily(name, meaning, labels=("tier", "reason")),
                {
                    (tier.value, reason.value): sum_of(totals)
                    for (tier, reason), totals in self._by_reason.items()
                },
            )
        for name, meaning, durations_of in _DURATIONS:
            yield histogram(
                name,
                meaning,
                ("tier",),
                {(tier.value,): durations_of(one) for tier, one in self._by_tier.items()},
            )
        yield histogram(
            "dimee_decision_seconds",
            "Time in which the policy decided.",
            (),
            {(): self._decision},
        )
        yield histogram(
            "dimee_request_seconds",
            "Time of a request with all its attempts, by the tier that answered, or none.",
            ("tier",),
            {(tier,): durations for tier, durations in self._request_s.items()},
        )
