"""A request's attempts, one after the other, until one answers for good."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mobile_client.attempts import Bookkeeper, OpenAttempt, Request, no_answer, report, total_cost
from mobile_client.device import Device, LocalAnswer
from mobile_client.resume import HiddenState
from shared.domain import Outcome, Tier
from shared.errors import (
    BundleError,
    BundleMismatch,
    DimeeError,
    InvalidInput,
    NotFound,
    TierError,
)
from shared.ledger.entry import LedgerEntry, Reason
from shared.policies import RoutingPolicy
from shared.runtime.layers import sure
from shared.tier_client import Exchange, TierClient
from shared.wire import Classification, InferRequest, InferResponse, ResumeRequest


@dataclass(slots=True)
class _Course:
    """A request under way: what was tried, what is ``ahead``, and how long it may still take.

    ``in_hand`` is an answer that was too unsure to be the last word, ``failed`` who gave none.
    ``state`` is how far the phone came, as long as a tier may go on from there.
    """

    request: Request
    policy: RoutingPolicy
    deadline_ms: float
    ahead: list[tuple[Tier, Reason]]
    left_ms: float
    started: float = field(default_factory=time.perf_counter)
    entries: list[LedgerEntry] = field(default_factory=list)
    errors: list[DimeeError] = field(default_factory=list)
    failed: set[Tier] = field(default_factory=set)
    in_hand: LocalAnswer | None = None
    state: HiddenState | None = None

    def spent_ms(self) -> float:
        """Milliseconds since the first attempt."""
        return (time.perf_counter() - self.started) * 1e3


@dataclass(frozen=True, slots=True)
class _Answer:
    probabilities: dict[str, float]
    truncated: bool


class Requester:
    """Takes a decided text through its tiers: route, escalate, fail over."""

    def __init__(
        self,
        device: Device,
        books: Bookkeeper,
        tiers: Mapping[Tier, TierClient],
        fail_over: Sequence[Tier],
    ) -> None:
        self._device = device
        self._books = books
        self._tiers = tiers
        self._fail_over = fail_over

    async def answer(
        self, request: Request, policy: RoutingPolicy, deadline_ms: float
    ) -> Classification:
        """Make attempts until one answers; raises the last one's `DimeeError` if none does."""
        first = request.decided.routing.tier
        # the phone's own layers need nobody to fail over to
        others = [] if first is Tier.MOBILE else [t for t in self._fail_over if t is not first]
        ahead = [(first, Reason.ROUTE), *((tier, Reason.FAIL_OVER) for tier in others)]
        course = _Course(request, policy, deadline_ms, ahead, left_ms=deadline_ms)
        while course.ahead:
            tier, reason = course.ahead.pop(0)
            after = course.entries[-1] if course.entries else None
            ordinal = len(course.entries) + 1
            state = self._device.resumption.choose(course.state, tier)
            resumed_after = course.state.layer if state and course.state else None
            attempt = self._books.begin(request, ordinal, tier, reason, after, resumed_after)
            with self._books.no_open_end(attempt):
                if tier is Tier.MOBILE:
                    answer = await self._here(course, attempt)
                else:
                    answer = await self._there(course, attempt, state)
            if answer is not None:
                return self._classification(course, answer)
        raise no_answer(course.errors)

    def _go_on(self, course: _Course, tier: Tier, answer: LocalAnswer) -> bool:
        """Whether another tier takes over this answer; it stays in hand until then."""
        decided = course.request.decided
        spent = sum(entry.cost_lambda or 0.0 for entry in course.entries)
        outcome = Outcome(tier, answer.exit_layer, answer.confidence, spent, answer.label_index)
        self._device.observed.now(course.left_ms)
        to = course.policy.escalate(decided.features, decided.routing, outcome, answer.sure)
        course.ahead.clear()
        if to is None or to in course.failed or course.left_ms <= 0:
            return False
        if not course.request.allowance.take():
            return False
        course.in_hand = answer
        course.ahead.append((to, Reason.ESCALATE))
        # not the phone: an answer is in hand, and taken when no server gives a better one
        known = {Tier.MOBILE, tier, to, *course.failed}
        course.ahead += [(t, Reason.FAIL_OVER) for t in self._fail_over if t not in known]
        return True

    async def _here(self, course: _Course, attempt: OpenAttempt) -> _Answer | None:
        """The phone's own layers; None: the answer is too unsure, and another tier takes over."""
        decided = course.request.decided
        paid = course.in_hand is not None
        local = course.in_hand or await self._device.answer(decided)
        if not paid:
            self._device.observed.answered(Tier.MOBILE, local.queue_ms + local.compute_ms)
        course.state = local.state
        course.left_ms = course.deadline_ms - course.spent_ms()
        final = paid or not self._go_on(course, Tier.MOBILE, local)
        if paid:
            course.ahead.clear()
        course.entries.append(self._books.answered_here(attempt, local, final, paid))
        return _Answer(local.probabilities, decided.encoded.truncated) if final else None

    async def _there(
        self, course: _Course, attempt: OpenAttempt, state: bytes | None
    ) -> _Answer | None:
        """One exchange with the edge or the cloud; None: it failed."""
        tier = attempt.entry.tier
        exchange = await self._ask(course, attempt, state)
        self._device.observed.exchanged(tier, exchange)
        course.left_ms = course.deadline_ms - course.spent_ms()
        if exchange.error is not None:
            course.errors.append(exchange.error)
            if state is not None and course.left_ms > 0 and may_do_with_text(exchange.error):
                course.state = None
                course.ahead.insert(0, (tier, Reason.RETRY))
            else:
                self._give_up(course, tier, exchange.error)
        elif exchange.answer is not None:
            self._device.resumption.learn(tier, exchange.answer)
            self._go_on(course, tier, self._as_local(course, tier, exchange.answer))
        final = not course.ahead
        course.entries.append(self._books.exchanged(attempt, exchange, final))
        if exchange.answer is None or not final:
            return None
        # a tier that resumed has not seen the text, and cannot know that it was cut
        truncated = exchange.answer.truncated or course.request.decided.encoded.truncated
        return _Answer(exchange.answer.probabilities, truncated)

    async def _ask(self, course: _Course, attempt: OpenAttempt, state: bytes | None) -> Exchange:
        entry = attempt.entry
        # a hung tier may use up half of what is left, as long as another can be asked
        timeout_ms = course.left_ms / 2 if course.ahead else course.left_ms
        alpha = course.request.decided.routing.alpha
        client = self._tiers[entry.tier]
        if state is not None:
            resume = ResumeRequest(
                request_id=entry.request_id,
                attempt_id=entry.attempt_id,
                ordinal=entry.ordinal,
                deadline_ms=timeout_ms,
                alpha=alpha,
                text_hash=entry.text_hash,
                text_chars=entry.text_chars,
            )
            return await client.resume(resume, state, timeout_ms / 1e3)
        infer = InferRequest(
            request_id=entry.request_id,
            attempt_id=entry.attempt_id,
            ordinal=entry.ordinal,
            deadline_ms=timeout_ms,
            alpha=alpha,
            text=course.request.text,
            pair=course.request.pair,
            bundle_id=self._device.bundle.bundle_id,
        )
        return await client.infer(infer, timeout_ms / 1e3)

    def _give_up(self, course: _Course, tier: Tier, error: DimeeError) -> None:
        course.failed.add(tier)
        if not may_fail_over(error) or course.left_ms <= 0:
            course.ahead.clear()
        if not course.ahead and course.in_hand is not None:
            course.ahead.append((Tier.MOBILE, Reason.FAIL_OVER))

    def _as_local(self, course: _Course, tier: Tier, answer: InferResponse) -> LocalAnswer:
        """A server's answer as one in hand: whoever takes it later pays nothing for it."""
        alpha = self._device.alpha(course.request.decided.routing)
        return LocalAnswer(
            label=answer.label,
            label_index=self._device.bundle.manifest.labels.index(answer.label),
            probabilities=answer.probabilities,
            confidence=answer.confidence,
            sure=tier is Tier.CLOUD or bool(sure(answer.confidence, alpha)),
            exit_layer=answer.exit_layer,
            queue_ms=0.0,
            compute_ms=0.0,
        )

    def _classification(self, course: _Course, answer: _Answer) -> Classification:
        last = course.entries[-1]
        assert last.label is not None
        assert last.exit_layer is not None
        assert last.confidence is not None
        decided = course.request.decided
        routing = decided.routing
        kept = course.request.allowance.exhausted
        reasons = {entry.reason for entry in course.entries}
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
            degraded=bool(course.request.degraded),
            budget_exhausted=kept,
            certificate_id=None if kept else course.request.certificate_id,
            tokens=decided.encoded.tokens,
            decision_ms=decided.decision_ms,
            total_ms=decided.decision_ms + course.spent_ms(),
            bundle_id=last.bundle_id,
            attempts=[report(entry) for entry in course.entries],
            cost=total_cost(course.entries),
        )


def may_fail_over(error: DimeeError) -> bool:
    """Whether another tier could do better: not where the input itself was refused."""
    return isinstance(error, TierError | BundleMismatch | BundleError)


def may_do_with_text(error: DimeeError) -> bool:
    """Whether a tier that refused a hidden state may take the text: it said no, and not busy."""
    return isinstance(error, InvalidInput | NotFound)
