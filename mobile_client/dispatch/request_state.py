"""State machine of one request: turns each event into the next action, without I/O or a clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, unique

from mobile_client.dispatch.events import (
    Accept,
    Action,
    Answered,
    Event,
    Failed,
    GiveUp,
    HedgeDue,
    HedgeEnded,
    MakeAttempt,
    Started,
    Wait,
)
from mobile_client.dispatch.tier_selector import TierSelector
from mobile_client.local.runtime import TierAnswer
from mobile_client.resilience.escalation_budget import EXHAUSTED, OFFLINE, UNAVAILABLE
from mobile_client.resilience.replica_stats import ReplicaStats
from shared.domain import Delivery, Reason, Tier
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
    TierFailed,
    TierUnreachable,
)


# fmt: off
@unique
class Transition(Enum):
    """The table of transitions; for each event, the first row whose condition holds applies."""

    # row          event         condition                                  next action
    TOO_LATE     = "Started",    "the deadline has passed",                 "give up"
    ROUTE        = "Started",    "the routed tier is a candidate",          "attempt it"
    REROUTE      = "Started",    "mode or cost ceiling exclude that tier",  "attempt the next tier"
    SKIP         = "Started",    "its circuit breaker excludes it",         "fail over to the next"
    NO_CANDIDATE = "Started",    "no tier is a candidate",                  "give up"

    REUSED       = "Answered",   "it is an earlier answer, returned again", "accept"
    ESCALATE     = "Answered",   "policy, time, candidates, budget allow",  "attempt the next tier"
    ACCEPT       = "Answered",   "otherwise",                               "accept"

    SEND_TEXT    = "Failed",     "the tier refused a hidden state",         "retry with the text"
    RECONNECT    = "Failed",     "an idle connection broke when reused",    "retry on a fresh one"
    OTHER        = "Failed",     "another replica of the tier is available", "attempt it"
    RETRY        = "Failed",     "a retry is safe, and no other is left",   "retry after a wait"
    FAIL_OVER    = "Failed",     "a candidate may do better",               "attempt it"
    FALL_BACK    = "Failed",     "an earlier answer exists",                "return it (mobile)"
    GIVE_UP      = "Failed",     "otherwise",                               "give up"

    HEDGE        = "HedgeDue",   "a server is left and both can be paid",   "attempt it as well"
    NO_HEDGE     = "HedgeDue",   "otherwise",                               "wait"
    HEDGE_ENDED  = "HedgeEnded", "always",                                  "wait"
# fmt: on


GRACE_MS = 100.0
"""An answer is still returned if it comes at most this long after the deadline."""
FIRST_WAIT_MS = 50.0
"""Longest wait before the first retry; each further retry doubles it. The wait is a random share
of it (full jitter), so that clients which failed together do not retry together."""
MAX_REPLICAS = 3
"""Most replicas of one tier that a request tries before another tier."""
MAX_WAIT_SHARE = 0.25
"""A retry whose wait takes more than this share of the remaining time is not made."""


@dataclass(slots=True)
class RequestState:
    """A request in flight; only `handle` changes it.

    ``fail_over`` lists the tiers that may replace a failed one, in order. ``retries`` is the
    maximum number of retries at one tier. ``jitter`` returns a random number in [0, 1).
    ``take_escalation`` takes one escalation from the client's budget; it returns False if none is
    left.
    """

    routed_tier: Tier
    deadline_ms: float
    selector: TierSelector
    fail_over: tuple[Tier, ...] = ()
    retries: int = 0
    jitter: Callable[[], float] = lambda: 0.5
    take_escalation: Callable[[], bool] = lambda: True

    transition: Transition | None = field(default=None, init=False)
    """Row of the table that applied last."""
    left_ms: float = field(default=0.0, init=False)
    """Remaining time at the last event, in milliseconds."""
    candidates: list[Tier] = field(default_factory=list, init=False)
    """Tiers to fail over to, in order."""
    best_answer: TierAnswer | None = field(default=None, init=False)
    """Answer that was escalated; it is returned if no later attempt answers."""
    failed: set[Tier] = field(default_factory=set, init=False)
    errors: list[DimeeError] = field(default_factory=list, init=False)
    skipped: dict[Tier, TierError] = field(default_factory=dict, init=False)
    """Tiers that were skipped because they failed before, with the reason."""
    cost_capped: bool = field(default=False, init=False)
    """True if the cost ceiling excluded a tier."""
    budget_exhausted: bool = field(default=False, init=False)
    """True if an answer was not escalated because the client had no escalations left."""
    preferred_unavailable: bool = field(default=False, init=False)
    """True if the tier that would have taken over was unavailable."""
    degraded_because: str | None = field(default=None, init=False)
    """`OFFLINE` or `UNAVAILABLE` if the mobile answered in place of a server."""
    resumable: bool = field(default=True, init=False)
    """False once a tier has refused the mobile's hidden state."""
    spent_lambda: float = field(default=0.0, init=False)
    """Cost of all attempts that have ended, in λ."""
    _attempts: int = field(default=0, init=False)
    _reconnected: set[Tier | ReplicaStats] = field(default_factory=set, init=False)
    _tried: dict[Tier, list[ReplicaStats]] = field(default_factory=dict, init=False)
    """Replicas that were asked, in order."""
    _hedged: Tier | None = field(default=None, init=False)
    """Tier whose replica was hedged with another one of the tier."""
    _hedging_tier: Tier | None = field(default=None, init=False)
    """Another tier that was asked because the first one was slow."""
    _reason: Reason = field(default=Reason.ROUTE, init=False)
    _retried: Counter[Tier] = field(default_factory=Counter, init=False)

    def handle(self, event: Event, spent_ms: float) -> Action:
        """Return the next action after ``event``, ``spent_ms`` after the request arrived."""
        self.left_ms = self.deadline_ms - spent_ms
        match event:
            case Started():
                return self._started(event, spent_ms)
            case Answered():
                return self._answered(event)
            case Failed():
                return self._failed(event)
            case HedgeDue():
                return self._hedge_due(event)
            case HedgeEnded():
                return self._hedge_ended(event)

    def deadline_error(self, spent_ms: float) -> DeadlineExceeded | None:
        """Return an error if an answer now would come more than `GRACE_MS` after the deadline."""
        if spent_ms <= self.deadline_ms + GRACE_MS:
            return None
        return DeadlineExceeded(
            f"the deadline of {self.deadline_ms:.0f} ms passed: {spent_ms:.0f} ms have gone by "
            "since the request arrived; the mobile is overloaded, try again later"
        )

    @property
    def withheld_because(self) -> str | None:
        """Reason for an answer other than the one that the policy chose, as in the ledger."""
        return self.degraded_because or (EXHAUSTED if self.budget_exhausted else None)

    def _started(self, event: Started, spent_ms: float) -> Action:
        if (late := self.deadline_error(spent_ms)) is not None:
            return self._give_up(Transition.TOO_LATE, late)
        routed = self.routed_tier
        # the mobile's own layers do not fail as a server does, so no other tier replaces them
        substitutes = () if routed is Tier.MOBILE else self.fail_over
        tiers = [routed, *(tier for tier in substitutes if tier != routed)]
        candidates = self._select(tiers)
        rerouted_to_mobile = not candidates and self.cost_capped
        if rerouted_to_mobile:
            candidates = self._select([Tier.MOBILE])
        if not candidates:
            skipped = [*self.skipped.values()]
            error = skipped[-1] if skipped else self.selector.ceiling_error([*tiers, Tier.MOBILE])
            return self._give_up(Transition.NO_CANDIDATE, error)
        nothing_failed = rerouted_to_mobile or not self.skipped
        self._mark_preferred_unavailable(event.preferred)
        self.candidates = candidates[1:]
        if candidates[0] is routed:
            return self._attempt(Transition.ROUTE, candidates[0], Reason.ROUTE)
        if nothing_failed:
            return self._attempt(Transition.REROUTE, candidates[0], Reason.ROUTE)
        return self._attempt(Transition.SKIP, candidates[0], Reason.FAIL_OVER)

    def _answered(self, event: Answered) -> Action:
        self.spent_lambda += event.cost_lambda
        self.candidates = []
        if self.best_answer is event.answer:
            return self._accept(Transition.REUSED, event)
        target = event.escalate_to
        if target is None and event.tier is Tier.MOBILE:
            self._mark_preferred_unavailable(event.preferred)
        if target is None or target in self.failed or self.left_ms <= 0:
            return self._accept(Transition.ACCEPT, event)
        # the mobile is no candidate: this answer is returned if no server gives a better one
        excluded = {Tier.MOBILE, event.tier, target, *self.failed}
        candidates = self._select(
            [target, *(tier for tier in self.fail_over if tier not in excluded)]
        )
        if candidates and not self.take_escalation():
            self.budget_exhausted = True
        if not candidates or self.budget_exhausted:
            self.preferred_unavailable |= target in self.skipped
            return self._accept(Transition.ACCEPT, event)
        self.best_answer = event.answer
        self.candidates = candidates[1:]
        direct = candidates[0] is target or target not in self.skipped
        reason = Reason.ESCALATE if direct else Reason.FAIL_OVER
        return self._attempt(Transition.ESCALATE, candidates[0], reason)

    def _failed(self, event: Failed) -> Action:
        self.spent_lambda += event.cost_lambda
        tier, error = event.tier, event.error
        if event.resumed and accepts_text_instead(error):
            if self.left_ms > 0:
                self.errors.append(error)
                self.resumable = False
                return self._attempt(
                    Transition.SEND_TEXT, tier, Reason.RETRY, replica=event.replica
                )
            # the caller sent a text, and is not told that a hidden state was wrong
            error = TierFailed(f"the {tier} refused the hidden state, and no time is left")
        self.errors.append(error)
        if self._may_reconnect(event):
            self._reconnected.add(event.replica or tier)
            return self._attempt(Transition.RECONNECT, tier, Reason.RETRY, replica=event.replica)
        if is_failure_of_tier(error) and self.left_ms > 0 and self._has_other_replica(tier):
            return self._attempt(Transition.OTHER, tier, Reason.RETRY)
        wait_ms = self._retry_wait_ms(event)
        if wait_ms is not None:
            self._retried[tier] += 1
            return self._attempt(Transition.RETRY, tier, Reason.RETRY, wait_ms)
        self.failed.add(tier)
        may_fail_over = is_failure_of_tier(error) and self.left_ms > 0
        self.candidates = self._select(self.candidates) if may_fail_over else []
        if self.candidates:
            return self._attempt(Transition.FAIL_OVER, self.candidates.pop(0), Reason.FAIL_OVER)
        if self.best_answer is not None:
            return self._attempt(Transition.FALL_BACK, Tier.MOBILE, Reason.FAIL_OVER)
        return self._give_up(
            Transition.GIVE_UP, combine_errors([*self.skipped.values(), *self.errors])
        )

    def _may_reconnect(self, event: Failed) -> bool:
        """Return True if the attempt may be made again at once, on a fresh connection."""
        asked = event.replica or event.tier
        first_time = event.reused_connection_broke and asked not in self._reconnected
        return first_time and self.left_ms > 0 and bool(self._select([event.tier]))

    def _hedge_due(self, event: HedgeDue) -> Action:
        both_lambda = self.selector.max_attempt_lambda(event.tier)
        if self._has_other_replica(event.tier, both_lambda):
            self._hedged, self._hedging_tier = event.tier, None
            return self._attempt(Transition.HEDGE, event.tier, Reason.HEDGE)
        candidates = self._select(self._servers(), both_lambda)
        if not candidates:
            self.transition = Transition.NO_HEDGE
            return Wait()
        self.candidates.remove(candidates[0])
        self._hedging_tier = candidates[0]
        return self._attempt(Transition.HEDGE, candidates[0], Reason.HEDGE)

    def _hedge_ended(self, event: HedgeEnded) -> Action:
        self.transition = Transition.HEDGE_ENDED
        self.spent_lambda += event.cost_lambda
        if event.error is not None:
            self.errors.append(event.error)
            again = event.tier is self._hedging_tier and is_failure_of_tier(event.error)
            if again and self._has_other_replica(event.tier):
                self.candidates.insert(0, event.tier)
            elif event.tier is not self._hedged:
                self.failed.add(event.tier)
        return Wait()

    def _has_other_replica(self, tier: Tier, more_lambda: float = 0.0) -> bool:
        """Return True if another replica of the tier is available and can be paid for."""
        tried = self._tried.get(tier, [])
        return (
            len(tried) < MAX_REPLICAS
            and self.selector.has_other(tier, tried)
            and bool(self.selector.select([tier], self.spent_lambda + more_lambda).candidates)
        )

    def _retry_wait_ms(self, event: Failed) -> float | None:
        """Return the wait before a retry at the same tier; None: do not retry."""
        tier = event.tier
        if self._servers() or self.best_answer is not None or not is_safe_to_retry(event):
            return None
        if self._retried[tier] >= self.retries:
            return None
        wait_ms = FIRST_WAIT_MS * 2.0 ** self._retried[tier] * self.jitter()
        wait_ms = max(wait_ms, 1e3 * (event.error.retry_after_s or 0.0))
        if wait_ms > MAX_WAIT_SHARE * self.left_ms or not self._select([tier]):
            return None
        return wait_ms

    def _servers(self) -> list[Tier]:
        return [tier for tier in self.candidates if tier is not Tier.MOBILE]

    def _select(self, tiers: Iterable[Tier], more_lambda: float = 0.0) -> list[Tier]:
        """Return the candidates among ``tiers``; record why the others are excluded."""
        selection = self.selector.select(tiers, self.spent_lambda + more_lambda)
        self.cost_capped |= selection.cost_capped
        for tier, error in selection.unavailable.items():
            self._skip(tier, error)
        return selection.candidates

    def _skip(self, tier: Tier, error: TierError) -> None:
        if tier not in self.failed:
            self.skipped.setdefault(tier, error)

    def _mark_preferred_unavailable(self, tier: Tier | None) -> None:
        """Record that the policy chose the mobile because ``tier`` is unavailable."""
        error = None if tier is None else self.selector.unavailable(tier)
        if tier is not None and error is not None:
            self._skip(tier, error)
            self.preferred_unavailable = True

    def _attempt(
        self,
        transition: Transition,
        tier: Tier,
        reason: Reason,
        wait_ms: float = 0.0,
        replica: ReplicaStats | None = None,
    ) -> MakeAttempt:
        """Return the action; without a ``replica`` one that was not tried is chosen, if any."""
        self.transition, self._reason = transition, reason
        self._attempts += 1
        tried = self._tried.setdefault(tier, [])
        replica = replica or self.selector.choose(tier, tried) or self.selector.choose(tier)
        if replica is not None and replica not in tried:
            tried.append(replica)
        hedged = reason is not Reason.HEDGE
        hedge_after_ms = self.selector.hedge_after_ms(replica) if hedged else None
        if hedge_after_ms is not None and hedge_after_ms >= self.left_ms - wait_ms:
            hedge_after_ms = None
        return MakeAttempt(
            tier,
            reason,
            ordinal=self._attempts,
            wait_ms=wait_ms,
            hedge_after_ms=hedge_after_ms,
            # a server that hangs leaves half of the time to the next one
            time_share=0.5 if self.candidates or self._has_other_replica(tier) else 1.0,
            reuses=self.best_answer if tier is Tier.MOBILE else None,
            fresh_connection=transition is Transition.RECONNECT,
            replica=replica,
        )

    def _accept(self, transition: Transition, event: Answered) -> Accept:
        self.transition = transition
        stands_in = self._reason is Reason.FAIL_OVER or self.preferred_unavailable
        if event.tier is Tier.MOBILE and stands_in:
            errors = [*self.skipped.values(), *self.errors]
            offline = all(isinstance(error, TierUnreachable) for error in errors)
            self.degraded_because = OFFLINE if offline else UNAVAILABLE
        return Accept(event.answer)

    def _give_up(self, transition: Transition, error: DimeeError) -> GiveUp:
        self.transition = transition
        return GiveUp(error)


def is_safe_to_retry(event: Failed) -> bool:
    """Return True if a retry cannot do the work twice: nothing was sent, or it was refused."""
    return event.delivery is Delivery.NOT_SENT or isinstance(event.error, Overloaded | NotReady)


def is_failure_of_tier(error: DimeeError) -> bool:
    """Return True if another tier may do better; False if the input itself was refused."""
    return isinstance(error, TierError | BundleMismatch | BundleError)


def accepts_text_instead(error: DimeeError) -> bool:
    """Return True if a tier that refused a hidden state with ``error`` may take the text."""
    return isinstance(error, InvalidInput | NotFound)


def combine_errors(errors: list[DimeeError]) -> DimeeError:
    """Return one error of the last error's class, with each different message once."""
    last = errors[-1]
    messages = list(dict.fromkeys(error.message for error in errors))
    if len(messages) == 1:
        return last
    return type(last)(
        "no tier answered: " + "; ".join(messages),
        field=last.field,
        limit=last.limit,
        retry_after_s=last.retry_after_s,
    )
