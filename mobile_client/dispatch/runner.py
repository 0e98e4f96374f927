"""Runs a request: executes the actions of its `RequestState` until it is answered or fails."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from mobile_client.dispatch.attempts import AttemptRecorder, OpenAttempt, RoutedRequest
from mobile_client.dispatch.events import (
    Accept,
    Action,
    Answered,
    Failed,
    GiveUp,
    MakeAttempt,
    Started,
)
from mobile_client.dispatch.replica_set import ReplicaSet
from mobile_client.dispatch.request_state import RequestState
from mobile_client.dispatch.tier_caller import RunningRequest, TierCaller
from mobile_client.dispatch.tier_selector import TierSelector
from mobile_client.dispatch.tier_wait import waiting_for_tier
from mobile_client.local.runtime import LocalRuntime, TierAnswer
from mobile_client.options import allowed_tiers
from mobile_client.resilience.escalation_budget import CERTIFICATE
from mobile_client.settings import MobileSettings
from shared.domain import Outcome, Reason, Tier, margin_of
from shared.errors import PolicyFailed
from shared.inference.layers import meets_threshold
from shared.ledger.entry import LedgerEntry
from shared.policies import RoutingPolicy
from shared.tier_client import Exchange
from shared.wire import AttemptReport, Classification, CostReport, InferResponse

Prepared = tuple[OpenAttempt, bytes | None]
"""The next attempt, and the encoded hidden state that it sends instead of the text."""


class RequestRunner:
    """Answers routed requests: attempts, retries, hedges, escalations and fail-overs."""

    def __init__(
        self,
        runtime: LocalRuntime,
        recorder: AttemptRecorder,
        replicas: ReplicaSet,
        settings: MobileSettings,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._runtime = runtime
        self._recorder = recorder
        self._settings = settings
        self._random = random.Random(settings.policy_seed)
        self._sleep = sleep
        self._clock = clock
        self._replicas = replicas
        self._caller = TierCaller(runtime, recorder, replicas)

    async def answer(
        self, request: RoutedRequest, policy: RoutingPolicy, deadline_ms: float, since: float
    ) -> Classification:
        """Make attempts until one answers; raise a `DimeeError` if none does.

        ``since`` is the time, in seconds of the runner's clock, from which the deadline counts. A
        request without a decision is recorded as one failed attempt on the mobile.
        """
        if request.error is not None:
            attempt = self._recorder.prepare(request, 1, Tier.MOBILE, Reason.ROUTE)
            self._recorder.open(attempt)
            with self._recorder.ensure_closed(attempt):
                raise request.error
        routing, state = request.routed.routing, self._state(request, deadline_ms)
        run = RunningRequest(request, policy, routing, state, since, self._clock)
        preferred = self._preferred_tier(run) if routing.tier is Tier.MOBILE else None
        action = run.state.handle(Started(preferred), run.spent_ms())
        following = self._prepare(run, action)
        if following is not None:
            self._recorder.open(following[0])
        while isinstance(action, MakeAttempt) and following is not None:
            attempt, hidden_state = following
            with self._recorder.ensure_closed(attempt):
                if action.wait_ms:
                    with waiting_for_tier():
                        await self._sleep(action.wait_ms / 1e3)
                attempt.start()
                if action.tier is Tier.MOBILE:
                    action, following = await self._run_locally(run, action, attempt)
                else:
                    action, following = await self._call_tier(run, action, attempt, hidden_state)
        if isinstance(action, GiveUp):
            raise action.error
        assert isinstance(action, Accept)
        return _classification(run, action.answer)

    def _state(self, request: RoutedRequest, deadline_ms: float) -> RequestState:
        runtime, routing = self._runtime, request.routed.routing
        selector = TierSelector(
            runtime.tier_stats,
            runtime.live_prices,
            runtime.resumption.last_layers
            | {Tier.MOBILE: routing.last_layer or runtime.mobile_layers},
            allowed_tiers(request.mode),
            request.max_cost_lambda,
            hedging=self._settings.hedge == "p95",
        )
        return RequestState(
            routing.tier,
            deadline_ms,
            selector,
            self._settings.fail_over,
            self._settings.retries,
            self._random.random,
            request.allowance.take,
        )

    def _prepare(self, run: RunningRequest, action: Action) -> Prepared | None:
        """Return the attempt that ``action`` asks for, not yet opened; None for other actions."""
        if not isinstance(action, MakeAttempt):
            return None
        state = run.hidden_state if run.state.resumable else None
        body = None if state is None else self._runtime.resumption.choose(state, action.tier)
        layer = state.layer if state is not None and body is not None else None
        replica = action.replica
        attempt = self._recorder.prepare(
            run.request,
            action.ordinal,
            action.tier,
            action.reason,
            layer,
            action.wait_ms,
            None if replica is None else self._replicas.client(replica).replica,
        )
        attempt.replica = replica
        return attempt, body

    async def _run_locally(
        self, run: RunningRequest, action: MakeAttempt, attempt: OpenAttempt
    ) -> tuple[Action, Prepared | None]:
        """Answer with the mobile's own layers, or return an earlier answer again."""
        answer, reused = action.reuses, action.reuses is not None
        if answer is None:
            answer = await run.in_time(self._runtime.answer(run.request.routed, run.check_deadline))
            run.hidden_state = answer.hidden_state
        run.check_deadline()
        cost_lambda, escalate_to = 0.0, None
        preferred = None
        if not reused:
            tier_ms = answer.queue_ms + answer.compute_ms
            self._runtime.tier_stats.record_delay(Tier.MOBILE, tier_ms)
            model = self._runtime.live_prices.cost_model
            cost_lambda = model.attempt(Tier.MOBILE, answer.exit_layer)
            outcome = _outcome(run, Tier.MOBILE, answer)
            escalate_to = self._escalate(run, outcome, answer)
            if escalate_to is None:
                preferred = self._preferred_tier(run, outcome, answer.meets_alpha)
        total_ms = attempt.elapsed_ms()
        event = Answered(Tier.MOBILE, answer, cost_lambda, escalate_to, preferred)
        following_action = run.state.handle(event, run.spent_ms())
        following = self._prepare(run, following_action)
        entry = self._recorder.close_local(
            attempt,
            answer,
            total_ms,
            reused=reused,
            following=following[0] if following else None,
            withheld_because=run.state.withheld_because,
        )
        run.entries.append(entry)
        return following_action, following

    async def _call_tier(
        self,
        run: RunningRequest,
        action: MakeAttempt,
        attempt: OpenAttempt,
        hidden_state: bytes | None,
    ) -> tuple[Action, Prepared | None]:
        """Make one exchange with the edge or the cloud, or a hedged pair of them."""
        with waiting_for_tier():
            attempt, exchange = await self._caller.call(run, action, attempt, hidden_state)
        with self._recorder.ensure_closed(attempt):  # may be the second attempt of a hedged pair
            spent_ms = run.spent_ms()
            late = run.state.deadline_error(spent_ms)
            if late is not None:
                exchange = replace(exchange, answer=None, error=exchange.error or late)
            event = self._event(run, attempt, exchange, resumed=hidden_state is not None)
            following_action = run.state.handle(event, spent_ms)
            following = self._prepare(run, following_action)
            entry = self._recorder.close_exchange(
                attempt,
                exchange,
                following[0] if following else None,
                run.state.withheld_because,
            )
        run.entries.append(entry)
        return following_action, following

    def _event(
        self, run: RunningRequest, attempt: OpenAttempt, exchange: Exchange, resumed: bool
    ) -> Answered | Failed:
        tier, cost_lambda = attempt.entry.tier, self._recorder.cost_lambda(attempt, exchange)
        if exchange.answer is None:
            assert exchange.error is not None
            return Failed(
                tier,
                exchange.error,
                exchange.delivery,
                cost_lambda,
                resumed,
                exchange.reused_connection_broke,
                attempt.replica,
            )
        if self._runtime.resumption.needs_hidden_states:
            self._runtime.resumption.learn(tier, exchange.answer)
        answer = self._tier_answer(run, tier, exchange.answer)
        escalate_to = self._escalate(run, _outcome(run, tier, answer), answer)
        return Answered(tier, answer, cost_lambda, escalate_to)

    def _escalate(self, run: RunningRequest, outcome: Outcome, answer: TierAnswer) -> Tier | None:
        """Return the tier that the policy escalates to in the present conditions, if any."""
        if run.policy.uses_conditions:
            self._runtime.tier_stats.refresh(run.state.deadline_ms - run.spent_ms())
        features, routing = run.request.routed.features, run.routing
        return run.policy.escalate(features, routing, outcome, answer.meets_alpha)

    def _preferred_tier(
        self, run: RunningRequest, outcome: Outcome | None = None, meets_alpha: bool = False
    ) -> Tier | None:
        """Return the tier that the policy would choose now if every server were available.

        None if all are available, or if the policy does not consider availability or fails.
        """
        tier_stats = self._runtime.tier_stats
        if not run.policy.uses_conditions or all(tier_stats.conditions.up.values()):
            return None
        features = run.request.routed.features
        with tier_stats.assume_all_available(), suppress(PolicyFailed):
            if outcome is None:
                return run.policy.route(features).tier
            return run.policy.escalate(features, run.routing, outcome, meets_alpha)
        return None

    def _tier_answer(self, run: RunningRequest, tier: Tier, answer: InferResponse) -> TierAnswer:
        alpha = self._runtime.alpha(run.routing)
        return TierAnswer(
            label=answer.label,
            label_index=self._runtime.bundle.manifest.labels.index(answer.label),
            probabilities=answer.probabilities,
            confidence=answer.confidence,
            meets_alpha=tier is Tier.CLOUD or bool(meets_threshold(answer.confidence, alpha)),
            exit_layer=answer.exit_layer,
            # a tier that resumes from a hidden state does not know whether the text was truncated
            truncated=answer.truncated or run.request.routed.encoded.truncated,
            queue_ms=0.0,
            compute_ms=0.0,
        )


def _outcome(run: RunningRequest, tier: Tier, answer: TierAnswer) -> Outcome:
    return Outcome(
        tier,
        answer.exit_layer,
        answer.confidence,
        run.state.spent_lambda,
        answer.label_index,
        margin_of(list(answer.probabilities.values())),
    )


def _classification(run: RunningRequest, answer: TierAnswer) -> Classification:
    request, state, last = run.request, run.state, run.entries[-1]
    assert last.label is not None
    assert last.exit_layer is not None
    assert last.confidence is not None
    reasons = {entry.reason for entry in run.entries}
    because = state.degraded_because or (CERTIFICATE if request.degraded else None)
    return Classification(
        request_id=last.request_id,
        label=last.label,
        probabilities=answer.probabilities,
        confidence=last.confidence,
        tier=last.tier,
        exit_layer=last.exit_layer,
        policy=run.routing.policy,
        difficulty=run.routing.difficulty.value if run.routing.difficulty else None,
        failed_over=Reason.FAIL_OVER in reasons,
        escalated=Reason.ESCALATE in reasons,
        truncated=answer.truncated,
        degraded=because is not None,
        degraded_because=because,
        skipped=list(state.skipped),
        cost_capped=state.cost_capped,
        budget_exhausted=state.budget_exhausted,
        certificate_id=None if state.withheld_because else request.certificate_id,
        tokens=request.routed.features.tokens,
        decision_ms=request.routed.decision_ms,
        total_ms=run.spent_ms(),
        bundle_id=last.bundle_id,
        trace_id=last.trace_id,
        attempts=[_attempt_report(entry) for entry in run.entries],
        cost=_cost_report(run.entries),
    )


def _attempt_report(entry: LedgerEntry) -> AttemptReport:
    """Return the report of an attempt from its ledger entry."""
    assert entry.reason is not None
    return AttemptReport(
        attempt_id=entry.attempt_id,
        tier=entry.tier,
        replica=entry.replica,
        reason=entry.reason,
        state=entry.state,
        error_code=entry.error_code,
        exit_layer=entry.exit_layer,
        resumed_after=entry.resumed_after,
        queue_ms=entry.queue_ms,
        compute_ms=entry.compute_ms,
        network_ms=entry.network_ms,
        round_trip_ms=entry.round_trip_ms,
        sent_bytes=entry.sent_bytes,
        received_bytes=entry.received_bytes,
        cost_lambda=entry.cost_lambda or 0.0,
    )


def _cost_report(entries: list[LedgerEntry]) -> CostReport:
    """Return a request's cost in both accounts, summed over its attempts."""
    return CostReport(
        cost_lambda=sum(entry.cost_lambda or 0.0 for entry in entries),
        all_cloud_lambda=entries[-1].all_cloud_lambda or 0.0,
        cost_usd=sum(entry.cost_usd or 0.0 for entry in entries),
        energy_mj=sum(entry.energy_mj or 0.0 for entry in entries),
        price_book=entries[-1].price_book or "",
    )
