"""Explanation of a request's attempts: each answer, and why it was escalated or kept."""

from __future__ import annotations

from dataclasses import replace

from mobile_client.insight.explanation import AttemptView, EscalationOption
from mobile_client.insight.replay import ReplayContext, correct_probability
from mobile_client.insight.request_trace import RequestTrace
from mobile_client.resilience.escalation_budget import EXHAUSTED, OFFLINE, UNAVAILABLE
from shared.bundle.correctness_heads import TIERS, answer_facts
from shared.domain import Expectation, Reason, Tier
from shared.ledger.entry import LedgerEntry
from shared.policies.cascade_routing import CascadeRouting


def explain_attempts(
    request: RequestTrace, context: ReplayContext, policy: CascadeRouting | None
) -> list[AttemptView]:
    """Return a view of each attempt; without ``policy``, gains and costs are left out."""
    escalated_to = {entry.attempt_id: tier for entry, tier in request.second_decisions()}
    return [
        _explain_attempt(entry, request, context, policy, escalated_to) for entry in request.path
    ]


def _explain_attempt(
    entry: LedgerEntry,
    request: RequestTrace,
    context: ReplayContext,
    policy: CascadeRouting | None,
    escalated_to: dict[str, Tier | None],
) -> AttemptView:
    view = AttemptView(
        ordinal=entry.ordinal,
        tier=entry.tier,
        reason=entry.reason.value if entry.reason else "",
        state=entry.state.value,
        verdict="",
        error_code=entry.error_code,
        label=entry.label,
        confidence=entry.confidence,
        exit_layer=entry.exit_layer,
        round_trip_ms=entry.round_trip_ms,
        cost_lambda=entry.cost_lambda,
        cost_usd=entry.cost_usd,
    )
    if entry.error_code == EXHAUSTED:
        return replace(view, verdict="kept: it should escalate, but the client's budget is used up")
    if entry.error_code in (OFFLINE, UNAVAILABLE) and entry.reason is not Reason.FAIL_OVER:
        return replace(view, verdict="kept: it should escalate, but that server was unavailable")
    if entry.attempt_id not in escalated_to:
        verdict = "returned again: no other tier answered" if entry.label else "no answer"
        return replace(view, verdict=verdict)
    target = escalated_to[entry.attempt_id]
    expectation = request.decision.expectation if request.decision else None
    if policy is None or expectation is None:
        return replace(view, verdict=f"escalated to {target}" if target else "kept")
    options = _options(policy, expectation, context, entry)
    return replace(
        view,
        right=correct_probability(policy, expectation, context.outcome(entry), entry.tier),
        options=options,
        verdict=_verdict(target, options),
    )


def _options(
    policy: CascadeRouting, expectation: Expectation, context: ReplayContext, entry: LedgerEntry
) -> list[EscalationOption]:
    outcome, index = context.outcome(entry), TIERS.index(entry.tier)
    agrees = outcome.label == expectation.label
    facts_G = answer_facts(outcome.confidence, agrees, expectation.margin, expectation.length)
    options = []
    for target in range(index + 1, len(TIERS)):
        layers = float(policy.heads.layers_T2[target, 1])
        total_lambda = policy.conditions.cost_lambda(TIERS[target], layers)
        waiting_lambda = policy.conditions.waiting_lambda(TIERS[target])
        options.append(
            EscalationOption(
                tier=TIERS[target],
                gain=policy.heads.gain(index, target, facts_G),
                cost_lambda=total_lambda - waiting_lambda,
                waiting_lambda=waiting_lambda,
                cost=policy.cost_weight * total_lambda,
            )
        )
    return options


def _verdict(target: Tier | None, options: list[EscalationOption]) -> str:
    gainful = [option for option in options if option.net_gain > 0]
    best = max(gainful, key=lambda option: option.net_gain).tier if gainful else None
    if target is best:
        if target is not None:
            return f"escalated to {target}: the gain exceeds the cost"
        return "kept: no gain exceeds its cost" if options else "kept: there is no higher tier"
    actual = f"escalated to {target}" if target else "kept"
    today = f"escalate to {best}" if best else "keep the answer"
    return (
        f"{actual}; at the present prices the policy would {today} (prices, delays or available "
        "tiers were different)"
    )
