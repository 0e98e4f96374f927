"""A request's attempts, one after the other, until one answers for good."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from mobile_client.dispatch.attempts import (
    AttemptRecorder,
    OpenAttempt,
    Request,
    no_answer,
    report,
    total_cost,
)
from mobile_client.dispatch.request_state import RequestState, TierSelector
from mobile_client.dispatch.tier_caller import TierCaller
from mobile_client.local.runtime import LocalAnswer, LocalRuntime
from mobile_client.resilience.escalation_budget import OFFLINE, UNAVAILABLE
from mobile_client.settings import MobileSettings
from shared.domain import Delivery, Outcome, Reason, Tier
from shared.errors import (
    BundleError,
    BundleMismatch,
    DeadlineExceeded,
    DimeeError,
    InvalidInput,
    NotFound,
    NotReady,
    Overloaded,
    TierError,
    TierUnreachable,
)
from shared.inference.layers import meets_threshold
from shared.policies import RoutingPolicy
from shared.policies.cascade_routing import CascadeRouting
from shared.tier_client import Exchange, TierClient
from shared.wire import Classification, InferResponse

FIRST_WAIT_MS = 50.0
"""The most that the first retry waits; each one after it twice as long. Full jitter: a share of it
that the dice choose, so that mobiles which failed together do not come back together."""


@dataclass(frozen=True, slots=True)
class _Answer:
    probabilities: dict[str, float]
    truncated: bool


class RequestRunner:
    """Takes a decided text through its tiers: route, escalate, fail over."""

    def __init__(
        self,
        runtime: LocalRuntime,
        recorder: AttemptRecorder,
        tiers: Mapping[Tier, TierClient],
        settings: MobileSettings,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._runtime = runtime
        self._recorder = recorder
        self._fail_over = settings.fail_over
        self._retries = settings.retries
        self._dice = random.Random(settings.policy_seed)
        self._sleep = sleep
        self._ways = TierSelector(runtime)
        self._asking = TierCaller(runtime, recorder, tiers, settings.hedge, self._ways)

    async def answer(
        self, request: Request, policy: RoutingPolicy, deadline_ms: float, since: float
    ) -> Classification:
        """Make attempts until one answers; raises the last one's `DimeeError` if none does.

        The deadline counts from ``since``, of `time.perf_counter`.
        """
        course = RequestState(request, policy, deadline_ms, left_ms=deadline_ms, started=since)
        course.check_time()
        course.left_ms = deadline_ms - course.spent_ms()
        self._ways.begin(course, self._fail_over)
        self._see_what_was_wanted(course)
        while course.ahead:
            if course.wait_ms:
                await self._sleep(course.wait_ms / 1e3)
                course.wait_ms = 0.0
                course.left_ms = course.deadline_ms - course.spent_ms()
            tier, reason = course.ahead.pop(0)
            after = course.entries[-1] if course.entries else None
            ordinal = len(course.entries) + 1
            state = self._runtime.resumption.choose(course.state, tier)
            resumed_after = course.state.layer if state and course.state else None
            attempt = self._recorder.begin(request, ordinal, tier, reason, after, resumed_after)
            with self._recorder.ensure_closed(attempt):
                if tier is Tier.MOBILE:
                    answer = await self._here(course, attempt)
                else:
                    answer = await self._there(course, attempt, state)
            if answer is not None:
                return self._classification(course, answer)
        raise no_answer([*course.skipped.values(), *course.errors])

    def _see_what_was_wanted(
        self, course: RequestState, after: tuple[Outcome, bool] | None = None
    ) -> None:
        """Note where the policy stays on the mobile because servers have failed."""
        decided, observed = course.request.decided, self._runtime.tier_stats
        if not isinstance(course.policy, CascadeRouting) or all(observed.conditions.up.values()):
            return
        with observed.all_up():
            if after is not None:
                wanted = course.policy.escalate(decided.features, decided.routing, *after)
            elif decided.routing.tier is Tier.MOBILE:
                wanted = course.policy.route(decided.features).tier
            else:
                wanted = None
        self._ways.wants(course, wanted)

    def _go_on(self, course: RequestState, tier: Tier, answer: LocalAnswer, spent: float) -> bool:
        """Whether another tier takes over this answer; it stays in hand until then."""
        decided = course.request.decided
        outcome = Outcome(
            tier, answer.exit_layer, answer.confidence, course.spent_lambda, answer.label_index
        )
        self._runtime.tier_stats.now(course.left_ms)
        to = course.policy.escalate(decided.features, decided.routing, outcome, answer.sure)
        course.ahead.clear()
        if to is None and tier is Tier.MOBILE:
            self._see_what_was_wanted(course, (outcome, answer.sure))
        if to is None or to in course.failed or course.left_ms <= 0:
            return False
        # not the mobile: an answer is in hand, and taken when no server gives a better one
        known = {Tier.MOBILE, tier, to, *course.failed}
        others = [(one, Reason.FAIL_OVER) for one in self._fail_over if one not in known]
        ways = self._ways.open(course, [(to, Reason.ESCALATE), *others], spent)
        if ways and ways[0][0] is not to and to not in course.skipped:
            ways[0] = (ways[0][0], Reason.ESCALATE)  # nobody failed: the mode or ceiling bars it
        if not ways or not course.request.allowance.take():
            course.wanted |= to in course.skipped
            return False
        course.in_hand = answer
        course.ahead += ways
        return True

    async def _here(self, course: RequestState, attempt: OpenAttempt) -> _Answer | None:
        """The mobile's own layers; None: the answer is too unsure, and another tier takes over."""
        decided = course.request.decided
        paid = course.in_hand is not None
        local = course.in_hand or await self._runtime.answer(decided, course.check_time)
        course.check_time()
        if not paid:
            self._runtime.tier_stats.answered(Tier.MOBILE, local.queue_ms + local.compute_ms)
        course.state = local.state
        course.left_ms = course.deadline_ms - course.spent_ms()
        spent = self._runtime.live_prices.cost_model.attempt(Tier.MOBILE, local.exit_layer)
        final = paid or not self._go_on(course, Tier.MOBILE, local, spent)
        if paid:
            course.ahead.clear()
        if final:
            course.because = _because(course, attempt.entry.reason)
            course.request.allowance.void = course.because
        course.entries.append(self._recorder.answered_here(attempt, local, final, paid))
        return _Answer(local.probabilities, decided.encoded.truncated) if final else None

    async def _there(
        self, course: RequestState, attempt: OpenAttempt, state: bytes | None
    ) -> _Answer | None:
        """One exchange with the edge or the cloud, or a hedged pair; None: it failed."""
        attempt, exchange = await self._asking.ask(course, attempt, state)
        with self._recorder.ensure_closed(attempt):  # it may be another than the one that began
            return self._take(course, attempt, exchange, resumed=state is not None)

    def _take(
        self, course: RequestState, attempt: OpenAttempt, exchange: Exchange, resumed: bool
    ) -> _Answer | None:
        tier = attempt.entry.tier
        course.left_ms = course.deadline_ms - course.spent_ms()
        try:
            course.check_time()
        except DeadlineExceeded as late:
            exchange = replace(exchange, answer=None, error=exchange.error or late)
        if exchange.error is not None:
            course.errors.append(exchange.error)
            if resumed and course.left_ms > 0 and may_do_with_text(exchange.error):
                course.state = None
                course.ahead.insert(0, (tier, Reason.RETRY))
            elif not self._asks_again(course, attempt, exchange):
                self._give_up(course, attempt, exchange)
        elif exchange.answer is not None:
            self._runtime.resumption.learn(tier, exchange.answer)
            local = self._as_local(course, tier, exchange.answer)
            spent = self._recorder.cost_lambda(attempt, exchange)
            self._go_on(course, tier, local, spent)
        final = not course.ahead
        course.entries.append(self._recorder.exchanged(attempt, exchange, final))
        if exchange.answer is None or not final:
            return None
        # a tier that resumed has not seen the text, and cannot know that it was cut
        truncated = exchange.answer.truncated or course.request.decided.encoded.truncated
        return _Answer(exchange.answer.probabilities, truncated)

    def _asks_again(self, course: RequestState, attempt: OpenAttempt, exchange: Exchange) -> bool:
        """Whether the same tier is asked once more: where that is safe, and nobody else is left."""
        tier, error = attempt.entry.tier, exchange.error
        assert error is not None
        servers = [way for way, _ in course.ahead if way is not Tier.MOBILE]
        if servers or course.in_hand is not None or not safe_to_retry(exchange):
            return False
        if course.retried[tier] >= self._retries:
            return False
        wait_ms = FIRST_WAIT_MS * 2 ** course.retried[tier] * self._dice.random()
        wait_ms = max(wait_ms, 1e3 * (error.retry_after_s or 0.0))
        if wait_ms > course.left_ms / 4:
            return False
        spent = self._recorder.cost_lambda(attempt, exchange)
        if not self._ways.open(course, [(tier, Reason.RETRY)], spent):
            return False
        course.retried[tier] += 1
        course.wait_ms = wait_ms
        course.ahead.insert(0, (tier, Reason.RETRY))
        return True

    def _give_up(self, course: RequestState, attempt: OpenAttempt, exchange: Exchange) -> None:
        course.failed.add(attempt.entry.tier)
        assert exchange.error is not None
        spent = self._recorder.cost_lambda(attempt, exchange)
        if not may_fail_over(exchange.error) or course.left_ms <= 0:
            course.ahead.clear()
        course.ahead = self._ways.open(course, course.ahead, spent)
        if not course.ahead and course.in_hand is not None:
            course.ahead.append((Tier.MOBILE, Reason.FAIL_OVER))

    def _as_local(self, course: RequestState, tier: Tier, answer: InferResponse) -> LocalAnswer:
        """A server's answer as one in hand: whoever takes it later pays nothing for it."""
        alpha = self._runtime.alpha(course.request.decided.routing)
        return LocalAnswer(
            label=answer.label,
            label_index=self._runtime.bundle.manifest.labels.index(answer.label),
            probabilities=answer.probabilities,
            confidence=answer.confidence,
            sure=tier is Tier.CLOUD or bool(meets_threshold(answer.confidence, alpha)),
            exit_layer=answer.exit_layer,
            queue_ms=0.0,
            compute_ms=0.0,
        )

    def _classification(self, course: RequestState, answer: _Answer) -> Classification:
        last = course.entries[-1]
        assert last.label is not None
        assert last.exit_layer is not None
        assert last.confidence is not None
        decided = course.request.decided
        routing = decided.routing
        allowance = course.request.allowance
        promised = not (allowance.exhausted or allowance.void)
        reasons = {entry.reason for entry in course.entries}
        because = course.because or ("promise" if course.request.degraded else None)
        return Classification(
            request_id=last.request_id,
            label=last.label,
            probabilities=answer.probabilities,
            confidence=last.confidence,
            tier=last.tier,
            exit_layer=last.exit_layer,
            policy=routing.policy,
            difficulty=routing.difficulty.value if routing.difficulty else None,
            failed_over=Reason.FAIL_OVER in reasons,
            escalated=Reason.ESCALATE in reasons,
            truncated=answer.truncated,
            degraded=because is not None,
            degraded_because=because,
            skipped=list(course.skipped),
            capped=course.capped,
            budget_exhausted=allowance.exhausted,
            certificate_id=course.request.certificate_id if promised else None,
            tokens=decided.encoded.tokens,
            decision_ms=decided.decision_ms,
            total_ms=course.spent_ms(),
            bundle_id=last.bundle_id,
            attempts=[report(entry) for entry in course.entries],
            cost=total_cost(course.entries),
        )


def _because(course: RequestState, reason: Reason | None) -> str | None:
    """Why the mobile's answer stands where a server's was wanted; None: it was not."""
    if reason is not Reason.FAIL_OVER and not course.wanted:
        return None
    errors = [*course.skipped.values(), *course.errors]
    gone = all(isinstance(error, TierUnreachable) for error in errors)
    return OFFLINE if gone else UNAVAILABLE


def safe_to_retry(exchange: Exchange) -> bool:
    """Whether asking again cannot do the work twice: nothing was sent, or it was refused unread."""
    if exchange.delivery is Delivery.NOT_SENT:
        return True
    return isinstance(exchange.error, Overloaded | NotReady)


def may_fail_over(error: DimeeError) -> bool:
    """Whether another tier could do better: not where the input itself was refused."""
    return isinstance(error, TierError | BundleMismatch | BundleError)


def may_do_with_text(error: DimeeError) -> bool:
    """Whether a tier that refused a hidden state may take the text: it said no, and not busy."""
    return isinstance(error, InvalidInput | NotFound)
