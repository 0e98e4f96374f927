"""Explanation of a recorded request: the reason for its first tier, and the alternatives."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from mobile_client.insight.explain_attempts import explain_attempts
from mobile_client.insight.explanation import Explanation, TierView, percentage_points
from mobile_client.insight.replay import (
    ReplayContext,
    expected_cost_lambda,
    waiting_lambda,
    with_conditions,
    with_recorded_delays,
    with_recorded_latency_price,
)
from mobile_client.insight.request_trace import DecisionContext, RequestTrace
from shared.bundle.correctness_heads import TIERS
from shared.domain import Expectation, Tier
from shared.ledger.entry import LedgerEntry
from shared.policies import POLICY_NAMES
from shared.policies.cascade_routing import CascadeRouting
from shared.policies.centroids import DIFFICULTIES

SAME = 1e-4
"""Expected values (probabilities) that differ by less are equal, since the ledger rounds them."""

FIXED_REASONS = {
    "random": "chosen at random, independent of the text",
    Tier.MOBILE.value: "the policy sends every text to the mobile",
    Tier.EDGE.value: "the policy sends every text to the edge",
    Tier.CLOUD.value: "the policy sends every text to the cloud",
    "bert": "the policy runs every text through all layers on the mobile",
    "early-exit": "every text stays on the mobile until the confidence of an exit reaches α",
    "adaee": "every text starts on the mobile; answers below the threshold that the bandit has"
    " learned go to the cloud",
    "i-splitee": "every text starts on the mobile and runs to the layer that the bandit has"
    " learned; answers below α there go to the cloud",
}
"""Explanations of policies that do not look at the text before the first answer."""


def explain(request: RequestTrace, context: ReplayContext) -> Explanation:
    """Explain the first tier, what the others would have cost, and the result of each attempt.

    If the request was answered with another bundle than the context's, the explanation contains
    only what the ledger recorded, with a note about it.
    """
    first = request.first
    same_bundle = first.bundle_id == context.bundle.bundle_id
    policy = context.policy if same_bundle and first.policy == CascadeRouting.name else None
    notes = []
    if not same_bundle:
        notes.append(_other_bundle(first.bundle_id, context.bundle.bundle_id))
    decision = request.decision
    if policy is not None and decision is not None:
        policy = with_recorded_delays(with_recorded_latency_price(policy, decision), decision)
    costs_from = context if same_bundle else None
    decided_by: Literal["expected_value", "distance"] | None = None
    if decision is not None and decision.expectation is not None:
        decided_by = "expected_value"
        why = _why_expected_value(first.tier, decision, policy)
        tiers = [
            _expected_view(tier, request, decision, decision.expectation, policy) for tier in TIERS
        ]
        notes += _changed_values(decision, decision.expectation, policy)
    elif decision is not None and decision.distances is not None:
        decided_by = "distance"
        why = _why_nearest(first, decision.distances)
        tiers = [_centroid_view(tier, request, decision.distances, costs_from) for tier in TIERS]
    else:
        why = _why_fixed(first)
        tiers = [_cost_view(tier, request, costs_from) for tier in TIERS]
    bundle_alpha = context.bundle.manifest.alpha if same_bundle else None
    return Explanation(
        request_id=first.request_id,
        policy=first.policy or "unknown",
        bundle_id=first.bundle_id,
        alpha=decision.alpha if decision and decision.alpha is not None else bundle_alpha,
        cost_weight=policy.cost_weight if policy else None,
        why=why,
        tiers=tiers,
        attempts=explain_attempts(request, context, policy),
        notes=notes,
        certificate_id=first.certificate_id,
        latency_price_lambda=decision.latency_price_lambda if decision else None,
        decided_by=decided_by,
        trace_id=first.trace_id,
    )


def _other_bundle(recorded: str, present: str) -> str:
    return (
        f"the request was answered with bundle {recorded}, but {present} is loaded: costs and "
        "gains that need the bundle are left out; give the folder of that bundle with --bundle"
    )


def _why_expected_value(
    chosen: Tier, decision: DecisionContext, policy: CascadeRouting | None
) -> str:
    values = dict(zip(TIERS, decision.expected_values or (None, None, None), strict=True))
    highest = values[chosen]
    if highest is None:
        return f"{chosen}: no tier could answer in time, and the mobile is always available"
    others = [
        (value, tier) for tier, value in values.items() if value is not None and tier is not chosen
    ]
    unavailable = [tier.value for tier, value in values.items() if value is None]
    if others and max(others)[0] > highest + SAME:
        best_value, best = max(others)
        return (
            f"{chosen}, although {best} had a higher expected value, "
            f"{percentage_points(best_value)} "
            f"against {percentage_points(highest)}: the request's mode, its cost ceiling or a "
            f"circuit breaker excluded {best}"
        )
    why = f"{chosen} had the highest expected value, {percentage_points(highest)}"
    if others:
        next_value, runner_up = max(others)
        difference = highest - next_value
        # the difference of the figures as they are shown
        shown = (round(100 * highest, 2) - round(100 * next_value, 2)) / 100
        why += f"; {runner_up} was next, {percentage_points(shown, sign=False)} lower"
        if policy is not None and policy.cost_weight > 0:
            why += f", which equals {difference / policy.cost_weight:.1f} λ"
    if unavailable:
        why += f"; {' and '.join(unavailable)} was unavailable or slower than the deadline"
    return why


def _expected_view(
    tier: Tier,
    request: RequestTrace,
    decision: DecisionContext,
    expectation: Expectation,
    policy: CascadeRouting | None,
) -> TierView:
    index = TIERS.index(tier)
    view = replace(
        _recorded_view(tier, request),
        right=expectation.expected[index],
        confident=None if tier is Tier.CLOUD else expectation.expected[len(TIERS) + index],
        expected_value=decision.expected_values[index] if decision.expected_values else None,
    )
    if decision.delays is not None:
        view = replace(view, delay_ms=decision.delays.get(tier))
    if policy is None:
        return view
    all_available = with_conditions(policy, replace(policy.conditions, up={}, left_ms=None))
    if tier is not Tier.CLOUD:
        confident, not_confident = (
            {to: float(share) for to, share in zip(TIERS, row_T, strict=True) if share > 0}
            for row_T in all_available.typical_escalations(index).share_ST
        )
        view = replace(
            view,
            escalates_confident=confident,
            escalates_not_confident=not_confident,
            threshold_target=all_available.threshold_plan_target(index, expectation),
        )
    waiting = waiting_lambda(all_available, tier, expectation)
    return replace(
        view,
        cost_lambda=expected_cost_lambda(all_available, tier, expectation),
        waiting_lambda=waiting if decision.latency_price_lambda else None,
    )


def _changed_values(
    decision: DecisionContext, expectation: Expectation, policy: CascadeRouting | None
) -> list[str]:
    """Return a note if the present prices give other expected values than those recorded."""
    if policy is None or decision.expected_values is None:
        return []
    present = policy.plan(expectation).expected_values or ()
    pairs = zip(decision.expected_values, present, strict=False)
    if all(a is not None and b is not None and abs(a - b) <= SAME for a, b in pairs):
        return []
    return [
        "expected values are as recorded; the present prices and thresholds give others, and "
        "expected costs and gains are at the present prices"
    ]


def _why_nearest(first: LedgerEntry, distances: tuple[float, ...]) -> str:
    nearest = first.difficulty.value if first.difficulty else "?"
    finite = sorted(distance for distance in distances if math.isfinite(distance))
    margin = f", {finite[1] - finite[0]:.4f} closer than the next" if len(finite) > 1 else ""
    expected = DIFFICULTIES[distances.index(min(distances))]
    if finite and expected.tier is not first.tier:
        return (
            f"{first.tier}, although the text's mean word embedding is closest to the centroid of "
            f"the {expected.value} pool, which is the {expected.tier}'s: the request's mode, its "
            f"cost ceiling or a circuit breaker excluded the {expected.tier}"
        )
    adapted = " at that time" if first.policy == "dimee-adaptive" else ""
    return (
        f"{first.tier}: the text's mean word embedding is closest to the centroid of the "
        f"{nearest} pool{adapted}{margin}; this policy ignores cost"
    )


def _centroid_view(
    tier: Tier, request: RequestTrace, distances: tuple[float, ...], context: ReplayContext | None
) -> TierView:
    difficulty = next(candidate for candidate in DIFFICULTIES if candidate.tier is tier)
    distance = distances[DIFFICULTIES.index(difficulty)]
    return replace(
        _cost_view(tier, request, context),
        difficulty=difficulty,
        distance=distance if math.isfinite(distance) else None,
    )


def _cost_view(tier: Tier, request: RequestTrace, context: ReplayContext | None) -> TierView:
    view = _recorded_view(tier, request)
    if context is None:
        return view
    policy = context.policy
    prices = policy.conditions.cost_model if policy else context.bundle.cost_model
    last_layers = {Tier.MOBILE: context.mobile_layers, Tier.EDGE: context.edge_layers}
    return replace(
        view,
        min_lambda=prices.attempt(tier, 1),
        max_lambda=prices.attempt(tier, last_layers.get(tier, prices.layers)),
    )


def _recorded_view(tier: Tier, request: RequestTrace) -> TierView:
    entry = next(
        (attempt for attempt in request.path if attempt is request.answers.get(tier)), None
    )
    if entry is None:
        return TierView(tier)
    return TierView(tier, recorded_lambda=entry.cost_lambda, recorded_usd=entry.cost_usd)


def _why_fixed(first: LedgerEntry) -> str:
    if first.degraded:
        return (
            f"{first.tier}: certificate {first.certificate_id} was found not to hold, so "
            "everything goes to the cloud until the alarm is reset"
        )
    policy = first.policy or ""
    if policy in FIXED_REASONS:
        return f"{first.tier} by {policy}: {FIXED_REASONS[policy]}"
    if policy and policy not in POLICY_NAMES:
        return (
            f"{first.tier} by {policy}: the policy is not built in, and the ledger does not record "
            "its reasons"
        )
    return (
        f"{first.tier} by {policy or 'an unknown policy'}: the ledger has no record of the "
        "decision (an older or another version wrote the entry)"
    )
