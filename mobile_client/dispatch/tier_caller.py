"""Exchanges with the edge and the cloud, with a hedge if the first one is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from mobile_client.dispatch.attempts import AttemptRecorder, OpenAttempt, RoutedRequest
from mobile_client.dispatch.events import HedgeDue, HedgeEnded, MakeAttempt
from mobile_client.dispatch.replica_set import ReplicaSet
from mobile_client.dispatch.request_state import GRACE_MS, RequestState
from mobile_client.dispatch.spans import begin_exchange, end_exchange
from mobile_client.local.resume import HiddenState
from mobile_client.local.runtime import LocalRuntime
from mobile_client.resilience.circuit_breaker import AttemptToken
from shared.domain import Delivery, RoutingDecision
from shared.errors import DeadlineExceeded
from shared.ledger.entry import LedgerEntry
from shared.policies import RoutingPolicy
from shared.tier_client import INFER, RESUME, Exchange
from shared.wire import InferRequest, ResumeRequest

T = TypeVar("T")
Called = tuple[OpenAttempt, Exchange]
MIN_LEFT_MS = 0.001
"""Timeout of an attempt whose deadline passed while it was being opened."""


@dataclass(slots=True)
class RunningRequest:
    """A request in flight: its state, its clock, and the entries of its attempts that ended.

    ``since`` is the time of ``clock``, in seconds, from which the deadline counts.
    """

    request: RoutedRequest
    policy: RoutingPolicy
    routing: RoutingDecision
    state: RequestState
    since: float
    clock: Callable[[], float]
    entries: list[LedgerEntry] = field(default_factory=list)
    hidden_state: HiddenState | None = None
    """Output of the mobile's last layer, from which another tier may resume."""

    def spent_ms(self) -> float:
        """Return the milliseconds since the request arrived."""
        return (self.clock() - self.since) * 1e3

    def check_deadline(self) -> None:
        """Raise `DeadlineExceeded` if an answer would come too late."""
        error = self.state.deadline_error(self.spent_ms())
        if error is not None:
            raise error

    async def in_time(self, work: Awaitable[T]) -> T:
        """Return the result of ``work`` on the mobile; raise `DeadlineExceeded` if it is late."""
        left_ms = self.state.deadline_ms + GRACE_MS - self.spent_ms()
        try:
            async with asyncio.timeout(max(MIN_LEFT_MS, left_ms) / 1e3):
                return await work
        except TimeoutError:
            self.check_deadline()
            raise DeadlineExceeded(
                f"the mobile's layers gave no answer within {self.state.deadline_ms:.0f} ms; the "
                "mobile is busy, such as with loading a policy"
            ) from None


class TierCaller:
    """Makes the attempts at servers; of a hedged pair, the first answer wins."""

    def __init__(
        self, runtime: LocalRuntime, recorder: AttemptRecorder, replicas: ReplicaSet
    ) -> None:
        self._runtime = runtime
        self._recorder = recorder
        self._replicas = replicas

    async def call(
        self,
        run: RunningRequest,
        action: MakeAttempt,
        attempt: OpenAttempt,
        hidden_state: bytes | None,
    ) -> Called:
        """Make the attempt and return it with its exchange.

        Of a hedged pair, return the attempt that is used; the other one is already closed.
        """
        if action.hedge_after_ms is None:
            return attempt, await self._exchange(run, action, attempt, hidden_state)
        first = self._start(run, action, attempt, hidden_state)
        try:
            await asyncio.wait({first}, timeout=action.hedge_after_ms / 1e3)
            if not first.done():
                hedge = run.state.handle(HedgeDue(action.tier), run.spent_ms())
                if isinstance(hedge, MakeAttempt):
                    return await self._call_second(run, hedge, attempt, first)
            return attempt, await first
        finally:
            await _cancel(first)

    async def _call_second(
        self,
        run: RunningRequest,
        hedge: MakeAttempt,
        first_attempt: OpenAttempt,
        first: asyncio.Task[Exchange],
    ) -> Called:
        assert hedge.replica is not None
        attempt = self._recorder.prepare(
            run.request,
            hedge.ordinal,
            hedge.tier,
            hedge.reason,
            replica=self._replicas.client(hedge.replica).replica,
        )
        attempt.hedges, attempt.replica = first_attempt, hedge.replica
        self._recorder.open(attempt)
        with self._recorder.ensure_closed(attempt):
            second = self._start(run, hedge, attempt, None)
            running = {first: first_attempt, second: attempt}
            ended: list[Called] = []
            try:
                while running:
                    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        ended.append((running.pop(task), task.result()))
                        if ended[-1][1].answer is not None:
                            return self._close_losers(run, ended, list(running.values()))
                return self._close_losers(run, ended, [])
            finally:
                await _cancel(second)

    def _close_losers(
        self, run: RunningRequest, ended: list[Called], cancelled: list[OpenAttempt]
    ) -> Called:
        """Close every attempt of a pair except the last one that ended, and return that one."""
        losers: list[tuple[OpenAttempt, Exchange | None]] = [
            (attempt, None) for attempt in cancelled
        ]
        for attempt, exchange in [*losers, *ended[:-1]]:
            entry = self._recorder.close_unused(attempt, exchange)
            if exchange is None:
                assert attempt.replica is not None
                attempt.replica.record_cancelled(entry.round_trip_ms or 0.0)
            error = exchange.error if exchange is not None else None
            event = HedgeEnded(entry.tier, entry.cost_lambda or 0.0, error)
            run.state.handle(event, run.spent_ms())
            run.entries.append(entry)
        return ended[-1]

    def _start(
        self,
        run: RunningRequest,
        action: MakeAttempt,
        attempt: OpenAttempt,
        hidden_state: bytes | None,
    ) -> asyncio.Task[Exchange]:
        """Start the exchange as a task; its replica is released even if the task never runs."""
        replica = action.replica
        assert replica is not None
        token = replica.begin()
        task = asyncio.create_task(self._exchange(run, action, attempt, hidden_state, token))
        task.add_done_callback(lambda _: replica.end(token))
        return task

    async def _exchange(
        self,
        run: RunningRequest,
        action: MakeAttempt,
        attempt: OpenAttempt,
        hidden_state: bytes | None,
        token: AttemptToken | None = None,
    ) -> Exchange:
        entry, replica = attempt.entry, action.replica
        assert replica is not None
        token = token or replica.begin()
        left_ms = max(MIN_LEFT_MS, run.state.deadline_ms - run.spent_ms())
        timeout_ms = left_ms * action.time_share
        client = self._replicas.client(replica)
        path = INFER if hidden_state is None else RESUME
        span = begin_exchange(attempt.trace, client.url, path, entry.tier)
        try:
            if hidden_state is not None:
                resume = ResumeRequest(
                    request_id=entry.request_id,
                    attempt_id=entry.attempt_id,
                    ordinal=entry.ordinal,
                    deadline_ms=timeout_ms,
                    alpha=run.routing.alpha,
                    text_hash=entry.text_hash,
                    text_chars=entry.text_chars,
                )
                assert entry.resumed_after is not None
                exchange = await client.resume(
                    resume,
                    hidden_state,
                    entry.resumed_after,
                    timeout_ms / 1e3,
                    fresh_connection=action.fresh_connection,
                    trace=span,
                )
            else:
                infer = InferRequest(
                    request_id=entry.request_id,
                    attempt_id=entry.attempt_id,
                    ordinal=entry.ordinal,
                    deadline_ms=timeout_ms,
                    alpha=run.routing.alpha,
                    text=run.request.text,
                    pair=run.request.pair,
                    bundle_id=self._runtime.bundle.bundle_id,
                )
                exchange = await client.infer(
                    infer,
                    timeout_ms / 1e3,
                    fresh_connection=action.fresh_connection,
                    trace=span,
                )
        except BaseException:
            replica.end(token)
            end_exchange(span, None)
            raise
        end_exchange(span, exchange)
        replica.record_exchange(exchange, token, timeout_ms)
        replica.end(token)
        if exchange.delivery is Delivery.NOT_SENT:
            self._replicas.connection_failed()
        return exchange


async def _cancel(task: asyncio.Task[Exchange]) -> None:
    """Cancel the task if it still runs, and wait until it has ended."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
