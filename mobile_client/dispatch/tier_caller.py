"""One exchange with a server, or a hedged pair of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Literal

from mobile_client.dispatch.attempts import AttemptRecorder, OpenAttempt
from mobile_client.dispatch.request_state import RequestState, TierSelector
from mobile_client.local.runtime import LocalRuntime
from shared.domain import Reason, Tier
from shared.tier_client import Exchange, TierClient
from shared.wire import InferRequest, ResumeRequest

Asked = tuple[OpenAttempt, Exchange]
MIN_LEFT_MS = 0.001
"""What an attempt is given where the deadline passed while it was being begun."""


class TierCaller:
    """Asks servers; with hedging ``p95`` a second one when the first is later than usual."""

    def __init__(
        self,
        runtime: LocalRuntime,
        recorder: AttemptRecorder,
        tiers: Mapping[Tier, TierClient],
        hedge: Literal["off", "p95"],
        ways: TierSelector,
    ) -> None:
        self._runtime = runtime
        self._recorder = recorder
        self._tiers = tiers
        self._hedges = hedge == "p95"
        self._ways = ways

    async def ask(self, course: RequestState, attempt: OpenAttempt, state: bytes | None) -> Asked:
        """Make the attempt; the winner of a hedged pair, whose loser is booked by then."""
        after_ms = self._hedge_after_ms(course, attempt.entry.tier)
        if after_ms is None:
            return attempt, await self._exchange(course, attempt, state)
        first = self._start(course, attempt, state)
        try:
            await asyncio.wait({first}, timeout=after_ms / 1e3)
            rival = self._rival(course, attempt)
            if first.done() or rival is None:
                return attempt, await first
            return await self._race(course, (attempt, first), rival)
        finally:
            await _end(first)

    def _hedge_after_ms(self, course: RequestState, tier: Tier) -> float | None:
        """When a second server is asked; None: never."""
        after_ms = self._runtime.tier_stats.p95_ms(tier) if self._hedges else None
        return None if after_ms is None or after_ms >= course.left_ms else after_ms

    def _rival(self, course: RequestState, attempt: OpenAttempt) -> Tier | None:
        """Who is asked as well: the next server ahead, where the ceiling pays for both."""
        worst = self._ways.worst_lambda(attempt.entry.tier, course.routing)
        servers = [way for way in course.ahead if way[0] is not Tier.MOBILE]
        found = self._ways.open(course, servers, worst)
        return found[0][0] if found else None

    async def _race(
        self, course: RequestState, first: tuple[OpenAttempt, asyncio.Task[Exchange]], tier: Tier
    ) -> Asked:
        course.ahead = [way for way in course.ahead if way[0] is not tier]
        ordinal = len(course.entries) + 2
        attempt = self._recorder.begin(course.request, ordinal, tier, Reason.HEDGE, None)
        attempt.rival = first[0]
        with self._recorder.ensure_closed(attempt):
            second = self._start(course, attempt, None)
            running = {first[1]: first[0], second: attempt}
            ended: list[Asked] = []
            try:
                while running:
                    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        ended.append((running.pop(task), task.result()))
                        if ended[-1][1].answer is not None:
                            return self._settled(course, ended, list(running.values()))
                return self._settled(course, ended, [])
            finally:
                await _end(second)

    def _settled(
        self, course: RequestState, ended: list[Asked], losers: list[OpenAttempt]
    ) -> Asked:
        """Book all but the last that ended; the losers are being cancelled."""
        for loser in losers:
            course.entries.append(self._recorder.hedged(loser, None))
        for attempt, exchange in ended[:-1]:
            assert exchange.error is not None
            course.errors.append(exchange.error)
            course.failed.add(attempt.entry.tier)
            course.entries.append(self._recorder.hedged(attempt, exchange))
        return ended[-1]

    def _start(
        self, course: RequestState, attempt: OpenAttempt, state: bytes | None
    ) -> asyncio.Task[Exchange]:
        """The exchange as a task; one that is cancelled before its first step gives up as well."""
        breaker = self._runtime.tier_stats.breakers[attempt.entry.tier]
        token = breaker.begin()
        task = asyncio.create_task(self._exchange(course, attempt, state, token))
        task.add_done_callback(lambda _: breaker.given_up(token))
        return task

    async def _exchange(
        self, course: RequestState, attempt: OpenAttempt, state: bytes | None, token: object = None
    ) -> Exchange:
        entry = attempt.entry
        breaker = self._runtime.tier_stats.breakers[entry.tier]
        token = token or breaker.begin()
        # a hung tier may use up half of what is left, as long as another can be asked
        left_ms = max(MIN_LEFT_MS, course.deadline_ms - course.spent_ms())
        timeout_ms = left_ms / 2 if course.ahead else left_ms
        alpha = course.routing.alpha
        client = self._tiers[entry.tier]
        try:
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
                exchange = await client.resume(resume, state, timeout_ms / 1e3)
            else:
                infer = InferRequest(
                    request_id=entry.request_id,
                    attempt_id=entry.attempt_id,
                    ordinal=entry.ordinal,
                    deadline_ms=timeout_ms,
                    alpha=alpha,
                    text=course.request.text,
                    pair=course.request.pair,
                    bundle_id=self._runtime.bundle.bundle_id,
                )
                exchange = await client.infer(infer, timeout_ms / 1e3)
        except BaseException:
            breaker.given_up(token)
            raise
        self._runtime.tier_stats.exchanged(entry.tier, exchange, token)
        return exchange


async def _end(task: asyncio.Task[Exchange]) -> None:
    """Cancel what still runs, and wait until it has."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
