"""Records the mobile's attempts in the outbox: opened before sending, closed at their end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from mobile_client.dispatch.decision_record import decision_record
from mobile_client.dispatch.spans import begin_attempt, end_attempt
from mobile_client.local.runtime import RoutedText, TierAnswer
from mobile_client.options import Mode
from mobile_client.resilience.escalation_budget import Allowance
from mobile_client.resilience.replica_stats import ReplicaStats
from shared.domain import Delivery, Reason, Side, State, Tier
from shared.errors import (
    DeadlineExceeded,
    DimeeError,
    NotAdmitted,
    NotReady,
    Overloaded,
    PolicyFailed,
)
from shared.ids import new_id
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from shared.pricing.live_prices import LivePrices
from shared.telemetry.trace_context import TraceContext
from shared.tier_client import Exchange

_CALLER_ONLY = (
    "reason",
    "policy",
    "difficulty",
    "decision_ms",
    "decision",
    "certificate_id",
    "degraded",
)


@dataclass(frozen=True, slots=True)
class RoutedRequest:
    """One text and its routing decision, shared by all attempts of the request.

    ``certificate_id`` names the certificate that covers the request, and ``degraded`` is True if an
    alarm has found that the certificate does not hold; both are None without a certificate.
    ``error`` is set if the policy made no decision.
    """

    text: str
    pair: str | None
    routed: RoutedText
    certificate_id: str | None = None
    degraded: bool | None = None
    allowance: Allowance = field(default_factory=Allowance, compare=False)
    mode: Mode = "auto"
    max_cost_lambda: float | None = None
    error: PolicyFailed | None = None
    request_id: str = field(default_factory=new_id)
    trace: TraceContext | None = None


@dataclass(slots=True)
class OpenAttempt:
    """An attempt that has not ended.

    For the second attempt of a hedged pair, ``hedges`` is the first one. If both are cancelled, the
    first is the request's final attempt, unless it has already lost (``lost``).
    """

    entry: LedgerEntry
    started: float
    trace: TraceContext | None = None
    hedges: OpenAttempt | None = None
    replica: ReplicaStats | None = None
    lost: bool = False
    waiting: bool = False
    """True while a retry waits; nothing has been sent yet."""
    closed: bool = False

    def start(self) -> None:
        """Start the attempt's clock; a retry starts it after its wait."""
        if self.waiting:
            self.entry = self.entry.model_copy(update={"started_at": time.time()})
            self.waiting = False
        self.started = time.perf_counter()

    def elapsed_ms(self) -> float:
        """Return the milliseconds since the start."""
        return (time.perf_counter() - self.started) * 1e3


class AttemptRecorder:
    """Records the caller's side of every attempt, and both sides of attempts on the mobile.

    The end of an attempt and the start of the next one are written in one transaction. If the
    process dies, the next process that opens the outbox finds exactly one open attempt of the
    request and closes it as the final one.
    """

    def __init__(self, outbox: Outbox, live_prices: LivePrices, bundle_id: str) -> None:
        self._outbox = outbox
        self._live_prices = live_prices
        self._bundle_id = bundle_id
        self.on_end: list[Callable[[LedgerEntry], None]] = []
        """Called with the caller's entry of each attempt that has ended, once it is recorded."""

    def prepare(
        self,
        request: RoutedRequest,
        ordinal: int,
        tier: Tier,
        reason: Reason,
        resumed_after: int | None = None,
        wait_ms: float = 0.0,
        replica: str | None = None,
    ) -> OpenAttempt:
        """Return a new attempt, to be opened by `open` or as ``following`` of a closing call.

        ``resumed_after`` is the layer whose output the tier gets instead of the text. ``wait_ms``
        is the time that a retry waits before it starts. ``replica`` is the name of the server's
        replica, if it is known.
        """
        text, pair, routed = request.text, request.pair, request.routed
        trace = begin_attempt(request.trace, wait_ms)
        entry = LedgerEntry(
            attempt_id=new_id(of=request.request_id),
            side=Side.CALLER,
            request_id=request.request_id,
            ordinal=ordinal,
            tier=tier,
            replica=replica,
            state=State.OPEN,
            reason=reason,
            policy=routed.routing.policy,
            difficulty=routed.routing.difficulty,
            writer="mobile",
            bundle_id=self._bundle_id,
            started_at=time.time(),
            text_hash=self._outbox.hash_text(text, pair),
            text_chars=len(text) + len(pair or ""),
            tokens=routed.features.tokens,
            resumed_after=resumed_after,
            decision_ms=routed.decision_ms if ordinal == 1 else None,
            decision=_decision(request) if ordinal == 1 else None,
            certificate_id=request.certificate_id,
            degraded=request.degraded,
            trace_id=None if trace is None else trace.trace_id,
            span_id=None if trace is None else trace.span_id,
        )
        return OpenAttempt(entry, time.perf_counter(), trace, waiting=wait_ms > 0)

    def open(self, attempt: OpenAttempt) -> None:
        """Record an attempt durably, before anything is sent; raises `NotReady` on a full disk."""
        self._outbox.record(attempt.entry)
        attempt.start()

    @contextmanager
    def ensure_closed(self, attempt: OpenAttempt) -> Iterator[None]:
        """Close the attempt as abandoned, timed out or failed if its work is cancelled or raises.

        The attempt is then the request's final one, unless it is an audit or the second of a hedged
        pair whose first attempt has not lost.
        """
        try:
            yield
        except asyncio.CancelledError:
            self._close_interrupted(attempt, State.ABANDONED, None)
            raise
        except Exception as error:
            code = error.code if isinstance(error, DimeeError) else "internal"
            late = isinstance(error, DeadlineExceeded)
            self._close_interrupted(attempt, State.TIMED_OUT if late else State.FAILED, code)
            raise

    def close_local(
        self,
        attempt: OpenAttempt,
        answer: TierAnswer,
        total_ms: float,
        *,
        reused: bool = False,
        following: OpenAttempt | None = None,
        withheld_because: str | None = None,
    ) -> LedgerEntry:
        """Close an attempt on the mobile and record it as both caller and tier.

        If ``reused``, the answer comes from an earlier attempt, which has the work and the cost.
        For ``following`` and ``withheld_because`` see `close_exchange`.
        """
        facts: dict[str, Any] = {
            "state": State.ANSWERED,
            "label": answer.label,
            "confidence": answer.confidence,
            "exit_layer": answer.exit_layer,
            "queue_ms": 0.0 if reused else answer.queue_ms,
            "compute_ms": 0.0 if reused else answer.compute_ms,
            "tier_ms": total_ms,
        }
        tier_side = attempt.entry.with_facts(
            facts | {"side": Side.TIER} | dict.fromkeys(_CALLER_ONLY)
        )
        facts |= {"delivery": Delivery.ARRIVED, "round_trip_ms": total_ms, "network_ms": 0.0}
        model = self._live_prices.cost_model
        cost_lambda = 0.0 if reused else model.attempt(Tier.MOBILE, answer.exit_layer)
        final = following is None
        entry = self._ended(attempt, facts, cost_lambda, final, withheld_because)
        self._write_end(attempt, [tier_side, entry], following)
        return entry

    def close_exchange(
        self,
        attempt: OpenAttempt,
        exchange: Exchange,
        following: OpenAttempt | None = None,
        withheld_because: str | None = None,
    ) -> LedgerEntry:
        """Close an attempt at another tier.

        ``following`` is the request's next attempt, which is opened in the same transaction.
        Without it, this attempt is the request's final one. ``withheld_because`` is the reason why
        a final answer is not the policy's choice; no certificate covers such an answer.
        """
        entry = self._ended_by(attempt, exchange, following is None, withheld_because)
        self._write_end(attempt, [entry], following)
        return entry

    def close_unused(self, attempt: OpenAttempt, exchange: Exchange | None) -> LedgerEntry:
        """Close an audit or the lost attempt of a hedged pair, whose answer is not used.

        ``exchange`` is None if the attempt was cancelled. Does not raise if the disk is full, so
        that no other attempt fails.
        """
        attempt.lost = attempt.closed = True
        if exchange is not None:
            entry = self._ended_by(attempt, exchange, final=False)
        else:
            entry = self._ended(
                attempt, _abandoned(attempt), self.cost_lambda(attempt, None), False
            )
        self._outbox.record_or_buffer(entry)
        self._ended_with(entry)
        return entry

    def cost_lambda(self, attempt: OpenAttempt, exchange: Exchange | None) -> float:
        """Return the cost in λ of an attempt; ``exchange`` is None if it was cancelled."""
        tier, model = attempt.entry.tier, self._live_prices.cost_model
        if exchange is None:
            return model.wasted(tier, sent=not attempt.waiting)
        if exchange.answer is None:
            return model.wasted(tier, exchange.delivery is not Delivery.NOT_SENT)
        # the edge charges by the layer; the cloud charges oc + γ for a request, resumed or not
        layers = exchange.answer.exit_layer - (attempt.entry.resumed_after or 0)
        return model.attempt(tier, layers)

    def _close_interrupted(
        self, attempt: OpenAttempt, state: State, error_code: str | None
    ) -> None:
        if attempt.closed:
            return
        hedging = attempt.hedges is not None and not attempt.hedges.lost
        entry = self._ended(
            attempt,
            _abandoned(attempt) | {"state": state, "error_code": error_code},
            self.cost_lambda(attempt, None),
            final=attempt.entry.reason is not Reason.AUDIT and not hedging,
        )
        attempt.closed = True
        self._outbox.record_or_buffer(entry)
        self._ended_with(entry)

    def _ended_with(self, entry: LedgerEntry) -> None:
        for observer in self.on_end:
            observer(entry)

    def _write_end(
        self, attempt: OpenAttempt, rows: list[LedgerEntry], following: OpenAttempt | None
    ) -> None:
        """Record the end of an attempt; the caller's entry is the last of ``rows``."""
        try:
            self._outbox.record(*rows, *([following.entry] if following else []))
        except NotReady:
            if following is None:
                raise
            # the disk is full: the next attempt is not made, so this one is the final one
            attempt.closed = True
            *other_rows, caller_side = rows
            final = caller_side.model_copy(update={"final": True})
            self._outbox.record_or_buffer(*other_rows, final)
            self._ended_with(final)
            raise
        attempt.closed = True
        self._ended_with(rows[-1])

    def _ended_by(
        self,
        attempt: OpenAttempt,
        exchange: Exchange,
        final: bool,
        withheld_because: str | None = None,
    ) -> LedgerEntry:
        facts: dict[str, Any] = {
            "delivery": exchange.delivery,
            "sent_bytes": exchange.sent_bytes,
            "received_bytes": exchange.received_bytes,
            "round_trip_ms": exchange.round_trip_ms,
            "replica": exchange.replica,
        }
        if exchange.answer is not None:
            network_ms = max(0.0, exchange.round_trip_ms - exchange.answer.tier_ms)
            facts |= exchange.answer.ledger_facts() | {"network_ms": network_ms}
        else:
            facts |= _error_facts(exchange)
        cost_lambda = self.cost_lambda(attempt, exchange)
        return self._ended(attempt, facts, cost_lambda, final, withheld_because)

    def _ended(
        self,
        attempt: OpenAttempt,
        facts: dict[str, Any],
        cost_lambda: float,
        final: bool,
        withheld_because: str | None = None,
    ) -> LedgerEntry:
        tier, book = attempt.entry.tier, self._live_prices.book
        compute_ms = facts.get("compute_ms") or 0.0
        moved_bytes = facts.get("sent_bytes", 0) + facts.get("received_bytes", 0)
        if final and withheld_because and facts.get("state") is State.ANSWERED:
            facts = facts | {
                "certificate_id": None,
                "degraded": None,
                "error_code": withheld_because,
            }
        entry = attempt.entry.with_facts(
            facts
            | {
                "final": final,
                "cost_lambda": cost_lambda,
                "cost_usd": book.usd(tier, compute_ms, moved_bytes),
                "energy_mj": book.mobile_energy_mj(tier, compute_ms, moved_bytes),
                "price_book": book.version,
                "all_cloud_lambda": self._live_prices.cost_model.all_cloud if final else None,
            }
        )
        if attempt.trace is not None:
            end_attempt(attempt.trace, entry)
        return entry


def _abandoned(attempt: OpenAttempt) -> dict[str, Any]:
    return {
        "state": State.ABANDONED,
        "delivery": Delivery.NOT_SENT if attempt.waiting else Delivery.UNKNOWN,
        "round_trip_ms": 0.0 if attempt.waiting else attempt.elapsed_ms(),
    }


def _decision(request: RoutedRequest) -> str | None:
    return decision_record(request.routed.routing, request.mode, request.max_cost_lambda)


def _error_facts(exchange: Exchange) -> dict[str, Any]:
    error = exchange.error
    if isinstance(error, DeadlineExceeded):
        state = State.TIMED_OUT
    elif isinstance(error, NotAdmitted | Overloaded | NotReady) or (
        exchange.delivery is Delivery.ARRIVED and error is not None and error.status != 500
    ):
        state = State.REFUSED
    else:
        state = State.FAILED
    return {"state": state, "error_code": error.code if error else None}
