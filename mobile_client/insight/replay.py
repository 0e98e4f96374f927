"""Replay requests of cascade routing at other prices, with the answers that were recorded.

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
from shared.policies.cascade_routing import CascadeRouting
from shared.policies.conditions import Conditions


@dataclass(frozen=True, slots=True)
class AtHand:
    """The bundle and the policy of the mobile as it is set now.

    ``cascade-routing`` is None where the bundle has no correctness heads. ``certified``: it decides
    at the prices of a certificate, whatever prices are.
    """

    bundle: Bundle
    value: CascadeRouting | None
    mobile_layers: int
    edge_layers: int
    certified: bool

    @classmethod
    def load(cls, settings: MobileSettings) -> Self:
        """What a mobile with these settings would decide by; raises `BundleError`."""
        runtime = LocalRuntime(settings)
        try:
            bundle, value = runtime.bundle, None
            if bundle.correctness_heads() is not None:
                policy = runtime.make_policy(CascadeRouting.name)
                assert isinstance(policy, CascadeRouting)
                value = policy
            layers = tier_layers(bundle, settings.mobile_layers, settings.edge_layers)
            certified = settings.certificate is not None
            return cls(bundle, value, layers.mobile.last, layers.edge.last, certified)
        finally:
            runtime.close()

    def outcome(self, entry: LedgerEntry) -> Outcome:
        """A booked answer as the policy saw it."""
        assert entry.exit_layer is not None
        labels = self.bundle.manifest.labels
        label = labels.index(entry.label) if entry.label in labels else -1
        return Outcome(entry.tier, entry.exit_layer, entry.confidence or 0.0, 0.0, label)


def under(policy: CascadeRouting, conditions: Conditions) -> CascadeRouting:
    """The same policy in other conditions."""
    other = copy.copy(policy)
    other.conditions = conditions
    return other


def as_known(policy: CascadeRouting, knew: DecisionContext | None) -> CascadeRouting:
    """The policy with the delays that the mobile knew of then; as it is where none are recorded."""
    delays = None if knew is None else knew.delays
    if delays is None:
        return policy
    return under(policy, replace(policy.conditions, delay_ms=delays))


def at_recorded_rate(policy: CascadeRouting, knew: DecisionContext | None) -> CascadeRouting:
    """The policy at the price of waiting of then; as it is where none is recorded."""
    if knew is None or knew.latency_price_lambda is None:
        return policy
    return under(policy, replace(policy.conditions, latency_price_lambda=knew.latency_price_lambda))


def expected_lambda(policy: CascadeRouting, tier: Tier, expectation: Expectation) -> float:
    """λ of starting at ``tier`` and going on as the policy does after typical answers.

    What a second escalation costs is not in it, nor the price of waiting: see `waiting_lambda`.
    """
    prices = Conditions(policy.conditions.cost_model)
    return _first_lambda(policy, prices, tier, expectation) + sum(
        share * _second_lambda(policy, prices, to)
        for to, share in goes_on(policy, tier, expectation).items()
    )


def waiting_lambda(policy: CascadeRouting, tier: Tier, expectation: Expectation) -> float:
    """λ of waiting that starting at ``tier`` adds, and going on as after typical answers."""
    waiting = policy.conditions.waiting
    shares = goes_on(policy, tier, expectation)
    return waiting(tier) + sum(share * waiting(to) for to, share in shares.items())


def goes_on(policy: CascadeRouting, tier: Tier, expectation: Expectation) -> dict[Tier, float]:
    """The tiers that answers of ``tier`` are expected to go on to, each with its share of them."""
    if tier is Tier.CLOUD:
        return {}
    index = TIERS.index(tier)
    share_T = policy.going_on(index).shares(expectation.expected[len(TIERS) + index])
    return {to: float(share) for to, share in zip(TIERS, share_T, strict=True) if share > 0}


def _first_lambda(
    policy: CascadeRouting, prices: Conditions, tier: Tier, expectation: Expectation
) -> float:
    index, layers_T2 = TIERS.index(tier), policy.heads.layers_T2
    if tier is Tier.CLOUD:
        return prices.cost(tier, float(layers_T2[index, 0]))
    sure = expectation.expected[len(TIERS) + index]
    cost_sure, cost_not = (prices.cost(tier, float(layers)) for layers in layers_T2[index])
    return sure * cost_sure + (1 - sure) * cost_not


def _second_lambda(policy: CascadeRouting, prices: Conditions, tier: Tier) -> float:
    """λ of an answer of ``tier`` to what another was not sure of."""
    return prices.cost(tier, float(policy.heads.layers_T2[TIERS.index(tier), 1]))


def right_after(
    policy: CascadeRouting, expectation: Expectation, outcome: Outcome, by: Tier
) -> float:
    """P(``by`` is right) after an answer of the same or of a cheaper tier."""
    heads, tier = policy.heads, TIERS.index(outcome.tier)
    facts_G = answer_facts(
        outcome.confidence,
        outcome.label == expectation.label,
        expectation.margin,
        expectation.length,
    )
    this = 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, float(facts_G @ heads.this_TG[tier])))))
    return this if by is outcome.tier else this + heads.gain(tier, TIERS.index(by), facts_G)


@dataclass(frozen=True, slots=True)
class Course:
    """What becomes of a request: who is asked ``first``, and the rest as expected values.

    ``answered_T`` are the probabilities that each tier's answer is the last, ``right`` that it is
    right; ``modelled``: the policy's expectation stands for an answer that nobody gave.
    """

    first: Tier
    answered_T: tuple[float, ...]
    cost_lambda: float
    right: float
    latency_ms: float
    modelled: bool


class Replay:
    """Replays requests by ``policy`` at its conditions' prices; ``delays`` say how long each takes.

    A tier that the request really visited gives its real answer again. For any other the policy's
    own expectation stands: of the text, or, after an answer, of that answer. Where they are
    recorded, each request is decided by the delays that the mobile knew of then with ``as_known``,
    and at the price of waiting of then with ``recorded_rate``, not by the policy's conditions.
    """

    def __init__(
        self,
        at_hand: AtHand,
        policy: CascadeRouting,
        delays: Delays,
        as_known: bool = False,
        recorded_rate: bool = False,
    ) -> None:
        self._at_hand = at_hand
        self._policy = policy
        self._delays = delays
        self._as_known = as_known
        self._recorded_rate = recorded_rate
        # the price of waiting moves decisions; it is nothing that anybody is paid
        self._prices = Conditions(policy.conditions.cost_model)

    def course(self, request: RequestTrace) -> Course:
        """One request, from the decision on."""
        expectation, policy = known(request), self._policy_for(request)
        tier = first = policy.plan(expectation).tier
        cost = latency_ms = 0.0
        outcome: Outcome | None = None
        while (entry := request.answers.get(tier)) is not None:
            cost += self._paid(entry)
            latency_ms += self._delays.of(entry)
            outcome = self._at_hand.outcome(entry)
            to = policy.replan(expectation, outcome)
            if to is None:
                right = right_after(policy, expectation, outcome, tier)
                return Course(first, _all(tier), cost, right, latency_ms, modelled=False)
            tier = to
        rest = self._modelled(policy, tier, expectation, outcome)
        return replace(
            rest,
            first=first,
            cost_lambda=cost + rest.cost_lambda,
            latency_ms=latency_ms + rest.latency_ms,
        )

    def reproduces(self, request: RequestTrace) -> bool:
        """Whether it decides here as it did then: at first, and after each answer."""
        expectation, policy = known(request), self._policy_for(request)
        return policy.plan(expectation).tier is request.first.tier and all(
            policy.replan(expectation, self._at_hand.outcome(entry)) is asked
            for entry, asked in request.second_decisions()
        )

    def _policy_for(self, request: RequestTrace) -> CascadeRouting:
        policy = self._policy
        if self._recorded_rate:
            policy = at_recorded_rate(policy, request.knew)
        return as_known(policy, request.knew) if self._as_known else policy

    def _modelled(
        self, policy: CascadeRouting, tier: Tier, expectation: Expectation, after: Outcome | None
    ) -> Course:
        index, latency_ms = TIERS.index(tier), self._delays.mean(tier)
        if after is not None:
            # whether it is sure of a text that another was not sure of is not known: it stays
            right = right_after(policy, expectation, after, tier)
            cost = _second_lambda(policy, self._prices, tier)
            return Course(tier, _all(tier), cost, right, latency_ms, modelled=True)
        shares, right = goes_on(policy, tier, expectation), expectation.expected[index]
        if shares:
            going_on = policy.going_on(index)
            right += going_on.gain(expectation.expected[len(TIERS) + index])
        answered = {tier: 1 - sum(shares.values())} | shares
        return Course(
            tier,
            tuple(answered.get(one, 0.0) for one in TIERS),
            expected_lambda(policy, tier, expectation),
            min(1.0, max(0.0, right)),
            latency_ms + sum(share * self._delays.mean(to) for to, share in shares.items()),
            modelled=True,
        )

    def _paid(self, entry: LedgerEntry) -> float:
        """λ of a real answer at these prices; the edge is paid by the layers that it ran."""
        assert entry.exit_layer is not None
        ran = entry.exit_layer - (entry.resumed_after or 0)
        return self._prices.cost(entry.tier, ran)


def known(request: RequestTrace) -> Expectation:
    """Return what the policy expected of the request's text; the request must be `replayable`."""
    assert request.knew is not None
    assert request.knew.expectation is not None
    return request.knew.expectation


def replayable(
    requests: Iterable[RequestTrace], bundle_id: str
) -> tuple[list[RequestTrace], dict[str, int]]:
    """The requests that can be replayed with this bundle, and why how many others cannot."""
    kept: list[RequestTrace] = []
    left_out: dict[str, int] = {}
    for request in requests:
        reason = _why_not(request, bundle_id)
        if reason is None:
            kept.append(request)
        else:
            left_out[reason] = left_out.get(reason, 0) + 1
    return kept, left_out


def _why_not(request: RequestTrace, bundle_id: str) -> str | None:
    if request.first.degraded:
        return "degraded to the cloud"
    if request.knew is not None and not request.knew.free:
        return "asked for in another mode or under a ceiling"
    if request.knew is None or request.knew.expectation is None:
        return "made before decisions were recorded"
    return None if request.first.bundle_id == bundle_id else "made with another bundle"


def _all(tier: Tier) -> tuple[float, ...]:
    return tuple(1.0 if one is tier else 0.0 for one in TIERS)
