"""Replay of recorded requests with cascade routing at other prices, links or delays.

Shape suffix: T tiers (mobile, edge, cloud).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from mobile_client.insight.delays import Delays
from mobile_client.insight.request_trace import DecisionContext, RequestTrace
from mobile_client.local.runtime import LocalRuntime
from mobile_client.settings import MobileSettings
from shared.bundle.correctness_heads import TIERS, answer_facts
from shared.bundle.loading import Bundle, tier_layers
from shared.domain import Expectation, Outcome, Tier
from shared.ledger.entry import LedgerEntry
from shared.policies.cascade_routing import CascadeRouting, as_cascade_routing
from shared.policies.conditions import Conditions


@dataclass(frozen=True, slots=True)
class ReplayContext:
    """The bundle and the policy `cascade-routing` of a mobile with the present settings.

    ``policy`` is None if the bundle has no correctness heads. ``certified`` means that the mobile
    decides at its certificate's prices, independent of the present prices.
    """

    bundle: Bundle
    policy: CascadeRouting | None
    mobile_layers: int
    edge_layers: int
    certified: bool

    @classmethod
    def load(cls, settings: MobileSettings) -> Self:
        """Return the context of a mobile with these settings; raises `BundleError`."""
        runtime = LocalRuntime(settings)
        try:
            bundle, policy = runtime.bundle, None
            if bundle.correctness_heads() is not None:
                policy = as_cascade_routing(runtime.make_policy(CascadeRouting.name))
            layers = tier_layers(bundle, settings.mobile_layers, settings.edge_layers)
            certified = settings.certificate is not None
            return cls(bundle, policy, layers.mobile.last, layers.edge.last, certified)
        finally:
            runtime.close()

    def outcome(self, entry: LedgerEntry) -> Outcome:
        """Return a recorded answer in the form that the policy gets."""
        assert entry.exit_layer is not None
        labels = self.bundle.manifest.labels
        label = labels.index(entry.label) if entry.label in labels else -1
        return Outcome(entry.tier, entry.exit_layer, entry.confidence or 0.0, 0.0, label)


def with_conditions(policy: CascadeRouting, conditions: Conditions) -> CascadeRouting:
    """Return a copy of the policy in other conditions."""
    other = copy.copy(policy)
    other.conditions = conditions
    return other


def with_recorded_delays(
    policy: CascadeRouting, decision: DecisionContext | None
) -> CascadeRouting:
    """Return the policy with the recorded delays; unchanged if none were recorded."""
    delays = None if decision is None else decision.delays
    if delays is None:
        return policy
    return with_conditions(policy, replace(policy.conditions, delay_ms=delays))


def with_recorded_latency_price(
    policy: CascadeRouting, decision: DecisionContext | None
) -> CascadeRouting:
    """Return the policy with the recorded price of waiting; unchanged if none was recorded."""
    if decision is None or decision.latency_price_lambda is None:
        return policy
    return with_conditions(
        policy, replace(policy.conditions, latency_price_lambda=decision.latency_price_lambda)
    )


def expected_cost_lambda(policy: CascadeRouting, tier: Tier, expectation: Expectation) -> float:
    """Return the expected λ of starting at ``tier``, with the escalations of typical answers.

    A second escalation is not included, nor the price of waiting (`waiting_lambda`).
    """
    prices = Conditions(policy.conditions.cost_model)
    return _first_cost_lambda(policy, prices, tier, expectation) + sum(
        share * _escalated_cost_lambda(policy, prices, to)
        for to, share in escalation_shares(policy, tier, expectation).items()
    )


def waiting_lambda(policy: CascadeRouting, tier: Tier, expectation: Expectation) -> float:
    """Return the expected λ of waiting, with the escalations of typical answers."""
    waiting = policy.conditions.waiting_lambda
    shares = escalation_shares(policy, tier, expectation)
    return waiting(tier) + sum(share * waiting(to) for to, share in shares.items())


def escalation_shares(
    policy: CascadeRouting, tier: Tier, expectation: Expectation
) -> dict[Tier, float]:
    """Return the expected share of answers of ``tier`` that escalate to each other tier."""
    if tier is Tier.CLOUD:
        return {}
    index = TIERS.index(tier)
    share_T = policy.typical_escalations(index).shares(expectation.expected[len(TIERS) + index])
    return {to: float(share) for to, share in zip(TIERS, share_T, strict=True) if share > 0}


def _first_cost_lambda(
    policy: CascadeRouting, prices: Conditions, tier: Tier, expectation: Expectation
) -> float:
    index, layers_T2 = TIERS.index(tier), policy.heads.layers_T2
    if tier is Tier.CLOUD:
        return prices.cost_lambda(tier, float(layers_T2[index, 0]))
    confident = expectation.expected[len(TIERS) + index]
    cost_confident, cost_not = (
        prices.cost_lambda(tier, float(layers)) for layers in layers_T2[index]
    )
    return confident * cost_confident + (1 - confident) * cost_not


def _escalated_cost_lambda(policy: CascadeRouting, prices: Conditions, tier: Tier) -> float:
    """Return the λ of an answer of ``tier`` to an escalated text."""
    return prices.cost_lambda(tier, float(policy.heads.layers_T2[TIERS.index(tier), 1]))


def correct_probability(
    policy: CascadeRouting, expectation: Expectation, outcome: Outcome, by: Tier
) -> float:
    """Return the probability that ``by`` is right, given an answer of the same or a lower tier."""
    heads, tier = policy.heads, TIERS.index(outcome.tier)
    facts_G = answer_facts(
        outcome.confidence,
        outcome.label == expectation.label,
        expectation.margin,
        expectation.length,
    )
    probability = 1.0 / (
        1.0 + math.exp(-max(-30.0, min(30.0, float(facts_G @ heads.this_TG[tier]))))
    )
    return (
        probability
        if by is outcome.tier
        else probability + heads.gain(tier, TIERS.index(by), facts_G)
    )


@dataclass(frozen=True, slots=True)
class ReplayedRequest:
    """Result of a replay: the ``first`` tier, and expected cost, accuracy and latency.

    ``answered_T`` holds the probability that each tier gives the final answer, ``right`` the
    probability that this answer is right. ``modelled`` is True if the policy's expectation replaces
    an answer that was not recorded.
    """

    first: Tier
    answered_T: tuple[float, ...]
    cost_lambda: float
    right: float
    latency_ms: float
    modelled: bool


class Replay:
    """Replays requests with ``policy`` at the prices of its conditions.

    A tier that answered the request gives its recorded answer again. For other tiers, the policy's
    expectation is used, given the text or the previous answer. ``delays`` give the latency. With
    ``use_recorded_delays`` and ``use_recorded_latency_price``, decisions use the recorded delays
    and price of waiting of each request instead of those in the policy's conditions.
    """

    def __init__(
        self,
        context: ReplayContext,
        policy: CascadeRouting,
        delays: Delays,
        use_recorded_delays: bool = False,
        use_recorded_latency_price: bool = False,
    ) -> None:
        self._context = context
        self._policy = policy
        self._delays = delays
        self._use_recorded_delays = use_recorded_delays
        self._use_recorded_latency_price = use_recorded_latency_price
        # the price of waiting affects decisions, but it is not part of the cost
        self._prices = Conditions(policy.conditions.cost_model)

    def run(self, request: RequestTrace) -> ReplayedRequest:
        """Replay one request, from its decision on."""
        expectation, policy = expectation_of(request), self._policy_for(request)
        tier = first = policy.plan(expectation).tier
        cost = latency_ms = 0.0
        outcome: Outcome | None = None
        while (entry := request.answers.get(tier)) is not None:
            cost += self._cost_lambda(entry)
            latency_ms += self._delays.answer_ms(entry)
            outcome = self._context.outcome(entry)
            to = policy.replan(expectation, outcome)
            if to is None:
                right = correct_probability(policy, expectation, outcome, tier)
                return ReplayedRequest(
                    first, _certain_answer(tier), cost, right, latency_ms, modelled=False
                )
            tier = to
        rest = self._expected_remainder(policy, tier, expectation, outcome)
        return replace(
            rest,
            first=first,
            cost_lambda=cost + rest.cost_lambda,
            latency_ms=latency_ms + rest.latency_ms,
        )

    def reproduces(self, request: RequestTrace) -> bool:
        """Return whether the replay repeats the recorded routing and every escalation decision."""
        expectation, policy = expectation_of(request), self._policy_for(request)
        return policy.plan(expectation).tier is request.first.tier and all(
            policy.replan(expectation, self._context.outcome(entry)) is recorded_tier
            for entry, recorded_tier in request.second_decisions()
        )

    def _policy_for(self, request: RequestTrace) -> CascadeRouting:
        policy = self._policy
        if self._use_recorded_latency_price:
            policy = with_recorded_latency_price(policy, request.decision)
        return (
            with_recorded_delays(policy, request.decision) if self._use_recorded_delays else policy
        )

    def _expected_remainder(
        self, policy: CascadeRouting, tier: Tier, expectation: Expectation, after: Outcome | None
    ) -> ReplayedRequest:
        index, latency_ms = TIERS.index(tier), self._delays.mean_ms(tier)
        if after is not None:
            # the heads do not predict a second escalation
            right = correct_probability(policy, expectation, after, tier)
            cost = _escalated_cost_lambda(policy, self._prices, tier)
            return ReplayedRequest(
                tier, _certain_answer(tier), cost, right, latency_ms, modelled=True
            )
        shares, right = escalation_shares(policy, tier, expectation), expectation.expected[index]
        if shares:
            escalations = policy.typical_escalations(index)
            right += escalations.gain(expectation.expected[len(TIERS) + index])
        answered = {tier: 1 - sum(shares.values())} | shares
        return ReplayedRequest(
            tier,
            tuple(answered.get(answering, 0.0) for answering in TIERS),
            expected_cost_lambda(policy, tier, expectation),
            min(1.0, max(0.0, right)),
            latency_ms + sum(share * self._delays.mean_ms(to) for to, share in shares.items()),
            modelled=True,
        )

    def _cost_lambda(self, entry: LedgerEntry) -> float:
        """Return the λ of a recorded answer at these prices, by the layers that ran."""
        assert entry.exit_layer is not None
        layers = entry.exit_layer - (entry.resumed_after or 0)
        return self._prices.cost_lambda(entry.tier, layers)


def expectation_of(request: RequestTrace) -> Expectation:
    """Return the recorded expectation of a `replayable` request."""
    assert request.decision is not None
    assert request.decision.expectation is not None
    return request.decision.expectation


def replayable(
    requests: Iterable[RequestTrace], bundle_id: str
) -> tuple[list[RequestTrace], dict[str, int]]:
    """Return the requests that this bundle can replay, and a count of the others by reason."""
    accepted: list[RequestTrace] = []
    left_out: dict[str, int] = {}
    for request in requests:
        reason = _exclusion_reason(request, bundle_id)
        if reason is None:
            accepted.append(request)
        else:
            left_out[reason] = left_out.get(reason, 0) + 1
    return accepted, left_out


def _exclusion_reason(request: RequestTrace, bundle_id: str) -> str | None:
    if request.first.degraded:
        return "degraded to the cloud"
    if request.decision is not None and not request.decision.is_unrestricted:
        return "restricted by a mode or a cost ceiling"
    if request.decision is None or request.decision.expectation is None:
        return "without a recorded decision"
    return None if request.first.bundle_id == bundle_id else "of another bundle"


def _certain_answer(tier: Tier) -> tuple[float, ...]:
    return tuple(1.0 if candidate is tier else 0.0 for candidate in TIERS)
