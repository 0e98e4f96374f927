"""One attempt from the caller's side: opened in the outbox, made, and ended there."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from mobile_client.dispatch.modes import Mode
from mobile_client.local.runtime import LocalAnswer, RoutedText
from mobile_client.resilience.escalation_budget import EXHAUSTED, Allowance
from shared.domain import Delivery, Reason, Side, State, Tier
from shared.errors import DeadlineExceeded, DimeeError, NotAdmitted, NotReady, RateLimited
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from shared.pricing.live_prices import LivePrices
from shared.tier_client import Exchange
from shared.wire import AttemptReport, CostReport

_CALLERS_OWN = (
    "reason",
    "policy",
    "difficulty",
    "decision_ms",
    "decision",
    "certificate_id",
    "degraded",
)


def new_id() -> str:
    """An identifier for a request or an attempt."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Request:
    """What all attempts of a request share.

    ``certificate_id`` is the promise that it is answered under, ``degraded`` whether that was found
    not to hold; None where there is no promise. ``mode`` and ``max_cost_lambda`` (all attempts
    together) say where it may go.
    """

    text: str
    pair: str | None
    decided: RoutedText
    certificate_id: str | None = None
    degraded: bool | None = None
    allowance: Allowance = field(default_factory=Allowance, compare=False)
    mode: Mode = "auto"
    max_cost_lambda: float | None = None
    request_id: str = field(default_factory=new_id)


@dataclass(slots=True)
class OpenAttempt:
    """An attempt under way; `end` turns it into its terminal entry and report."""

    entry: LedgerEntry
    started: float
    allowance: Allowance = field(default_factory=Allowance)
    rival: OpenAttempt | None = None
    """Of a hedge: the attempt that it races with, the last word when both are broken off."""
    lost: bool = False


class AttemptRecorder:
    """Books the caller's side of every attempt, and both sides of the mobile's own."""

    def __init__(self, outbox: Outbox, live_prices: LivePrices, bundle_id: str) -> None:
        self._outbox = outbox
        self._live_prices = live_prices
        self._bundle_id = bundle_id

    def begin(
        self,
        request: Request,
        ordinal: int,
        tier: Tier,
        reason: Reason,
        after: LedgerEntry | None,
        resumed_after: int | None = None,
    ) -> OpenAttempt:
        """Open an attempt durably, before anything is sent.

        The end of the attempt ``after`` which it comes is written together with it: a request whose
        mobile dies in between would have no last attempt. ``resumed_after``: the layer whose output
        the tier gets instead of the text.
        """
        text, pair, decided = request.text, request.pair, request.decided
        entry = LedgerEntry(
            attempt_id=new_id(),
            side=Side.CALLER,
            request_id=request.request_id,
            ordinal=ordinal,
            tier=tier,
            state=State.OPEN,
            reason=reason,
            policy=decided.routing.policy,
            difficulty=decided.routing.difficulty,
            writer="mobile",
            bundle_id=self._bundle_id,
            started_at=time.time(),
            text_hash=self._outbox.hash_text(text, pair),
            text_chars=len(text) + len(pair or ""),
            tokens=decided.encoded.tokens,
            resumed_after=resumed_after,
            decision_ms=decided.decision_ms if ordinal == 1 else None,
            decision=_knew(request) if ordinal == 1 else None,
            certificate_id=request.certificate_id,
            degraded=request.degraded,
        )
        try:
            self._outbox.record(*([after] if after else []), entry)
        except NotReady:  # a full disk: nothing is sent, and what came before was the last
            if after:
                self._outbox.record_or_buffer(after.model_copy(update={"final": True}))
            raise
        return OpenAttempt(entry, time.perf_counter(), request.allowance)

    @contextmanager
    def ensure_closed(self, attempt: OpenAttempt) -> Iterator[None]:
        """End the attempt as abandoned, too late or failed if its work is cancelled or raises."""
        try:
            yield
        except asyncio.CancelledError:
            self._broken_off(attempt, State.ABANDONED, None)
            raise
        except Exception as error:
            code = error.code if isinstance(error, DimeeError) else "internal"
            late = isinstance(error, DeadlineExceeded)
            self._broken_off(attempt, State.TIMED_OUT if late else State.FAILED, code)
            raise

    def answered_here(
        self, attempt: OpenAttempt, local: LocalAnswer, final: bool, paid: bool = False
    ) -> LedgerEntry:
        """End an attempt on the mobile itself: caller and tier in one, it books both sides.

        One that is not ``final`` is written, on the caller's side, by `begin`. ``paid``: the answer
        was in hand, from an earlier attempt that bears its work.
        """
        total_ms = (time.perf_counter() - attempt.started) * 1e3
        facts: dict[str, Any] = {
            "state": State.ANSWERED,
            "label": local.label,
            "confidence": local.confidence,
            "exit_layer": local.exit_layer,
            "queue_ms": 0.0 if paid else local.queue_ms,
            "compute_ms": 0.0 if paid else local.compute_ms,
            "tier_ms": total_ms,
        }
        tier_side = facts | {"side": Side.TIER} | dict.fromkeys(_CALLERS_OWN)
        self._outbox.record(attempt.entry.model_copy(update=tier_side))
        caller_side = facts | {
            "delivery": Delivery.ARRIVED,
            "round_trip_ms": total_ms,
            "network_ms": 0.0,
        }
        cost = 0.0 if paid else self._live_prices.cost_model.attempt(Tier.MOBILE, local.exit_layer)
        return self._end(attempt, caller_side, cost, final)

    def exchanged(self, attempt: OpenAttempt, exchange: Exchange, final: bool) -> LedgerEntry:
        """End an attempt at another tier; one that is not ``final`` is written by `begin`."""
        facts: dict[str, Any] = {
            "delivery": exchange.delivery,
            "sent_bytes": exchange.sent_bytes,
            "received_bytes": exchange.received_bytes,
            "round_trip_ms": exchange.round_trip_ms,
        }
        if exchange.answer is not None:
            network_ms = max(0.0, exchange.round_trip_ms - exchange.answer.tier_ms)
            facts |= exchange.answer.ledger_facts() | {"network_ms": network_ms}
        else:
            facts |= _error_facts(exchange)
        return self._end(attempt, facts, self.cost_lambda(attempt, exchange), final)

    def cost_lambda(self, attempt: OpenAttempt, exchange: Exchange) -> float:
        """λ of an attempt that ended so."""
        tier = attempt.entry.tier
        if exchange.answer is None:
            return self._live_prices.cost_model.wasted(
                tier, exchange.delivery is not Delivery.NOT_SENT
            )
        # the edge is paid by the layer, the cloud by the request: oc + γ, resumed or not
        ran = exchange.answer.exit_layer - (attempt.entry.resumed_after or 0)
        return self._live_prices.cost_model.attempt(tier, ran)

    def hedged(self, attempt: OpenAttempt, exchange: Exchange | None) -> LedgerEntry:
        """End the one of a pair that did not win; no exchange: it was cancelled."""
        attempt.lost = True
        if exchange is not None:
            entry = self.exchanged(attempt, exchange, final=False)
        else:
            facts = _abandoned(attempt)
            wasted = self._live_prices.cost_model.wasted(attempt.entry.tier, sent=True)
            entry = self._end(attempt, facts, wasted, final=False)
        self._outbox.record_or_buffer(entry)
        return entry

    def audited(self, attempt: OpenAttempt, exchange: Exchange) -> LedgerEntry:
        """End an audit: the request has had its final attempt, and this one changes no answer."""
        entry = self.exchanged(attempt, exchange, final=False)
        self._outbox.record_or_buffer(entry)
        return entry

    def _broken_off(self, attempt: OpenAttempt, state: State, error_code: str | None) -> None:
        racing = attempt.rival is not None and not attempt.rival.lost
        final = attempt.entry.reason is not Reason.AUDIT and not racing
        entry = self._ended(
            attempt,
            _abandoned(attempt) | {"state": state, "error_code": error_code},
            self._live_prices.cost_model.wasted(attempt.entry.tier, sent=True),
            final,
        )
        self._outbox.record_or_buffer(entry)

    def _end(
        self, attempt: OpenAttempt, facts: dict[str, Any], cost_lambda: float, final: bool
    ) -> LedgerEntry:
        entry = self._ended(attempt, facts, cost_lambda, final)
        if final:
            self._outbox.record(entry)
        return entry

    def _ended(
        self, attempt: OpenAttempt, facts: dict[str, Any], cost_lambda: float, final: bool
    ) -> LedgerEntry:
        tier = attempt.entry.tier
        compute_ms = facts.get("compute_ms") or 0.0
        moved = facts.get("sent_bytes", 0) + facts.get("received_bytes", 0)
        kept = attempt.allowance.exhausted
        if final and (kept or attempt.allowance.void) and facts.get("state") is State.ANSWERED:
            # answered, but not as the promise has it
            facts = facts | {"certificate_id": None, "degraded": None}
            facts["error_code"] = attempt.allowance.void or EXHAUSTED
        return attempt.entry.model_copy(
            update=facts
            | {
                "final": final,
                "cost_lambda": cost_lambda,
                "cost_usd": self._live_prices.book.usd(tier, compute_ms, moved),
                "energy_mj": self._live_prices.book.mobile_energy_mj(tier, compute_ms, moved),
                "price_book": self._live_prices.book.version,
                "all_cloud_lambda": self._live_prices.cost_model.all_cloud if final else None,
            }
        )


def _abandoned(attempt: OpenAttempt) -> dict[str, Any]:
    return {
        "state": State.ABANDONED,
        "delivery": Delivery.UNKNOWN,
        "round_trip_ms": (time.perf_counter() - attempt.started) * 1e3,
    }


def _knew(request: Request) -> str | None:
    """What the policy knew, found and was bound by, for ``dimee explain`` and ``dimee whatif``."""
    routing = request.decided.routing
    facts: dict[str, Any] = {
        "distances": routing.distances,
        "expected_values": routing.expected_values,
        "expectation": asdict(routing.expectation) if routing.expectation else None,
        "alpha": routing.alpha,
        "delay_ms": routing.delay_ms,
        "latency_price_lambda": routing.latency_price_lambda,
        "mode": None if request.mode == "auto" else request.mode,
        "max_cost_lambda": request.max_cost_lambda,
    }
    known = {name: _rounded(value) for name, value in facts.items() if value is not None}
    return json.dumps(known, separators=(",", ":")) if known else None


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [_rounded(part) for part in value]
    return value


def _error_facts(exchange: Exchange) -> dict[str, Any]:
    error = exchange.error
    if isinstance(error, DeadlineExceeded):
        state = State.TIMED_OUT
    elif isinstance(error, NotAdmitted | RateLimited) or (
        exchange.delivery is Delivery.ARRIVED and error is not None and error.status != 500
    ):
        state = State.REFUSED
    else:
        state = State.FAILED
    return {"state": state, "error_code": error.code if error else None}


def report(entry: LedgerEntry) -> AttemptReport:
    """What an answer says of an attempt."""
    assert entry.reason is not None
    return AttemptReport(
        attempt_id=entry.attempt_id,
        tier=entry.tier,
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


def total_cost(entries: list[LedgerEntry]) -> CostReport:
    """A request's cost in both books: the sum over its attempts."""
    return CostReport(
        cost_lambda=sum(entry.cost_lambda or 0.0 for entry in entries),
        all_cloud_lambda=entries[-1].all_cloud_lambda or 0.0,
        cost_usd=sum(entry.cost_usd or 0.0 for entry in entries),
        energy_mj=sum(entry.energy_mj or 0.0 for entry in entries),
        price_book=entries[-1].price_book or "",
    )


def no_answer(errors: list[DimeeError]) -> DimeeError:
    """One error for a request that nobody answered: the last one's class, each tier's reason."""
    last = errors[-1]
    if len(errors) == 1:
        return last
    return type(last)(
        "no tier answered: " + "; ".join(error.message for error in errors),
        field=last.field,
        limit=last.limit,
        retry_after_s=last.retry_after_s,
    )
