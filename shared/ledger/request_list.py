"""List of ended requests: its filter, and the compact record of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.domain import Reason, Side, State, Tier
from shared.field_types import Timestamp, Word
from shared.ledger.entry import LedgerEntry
from shared.ledger.reports import Report

MAX_REQUESTS = 1_000
"""Most requests of one list."""


class RequestFilter(BaseModel):
    """Which ended requests to list, newest first: all that fit every given field.

    - ``since``, ``until``: bounds of ``RequestRecord.at``. ``until`` is excluded, so that the last
      ``at`` of one list is the ``until`` of the next one.
    - ``policy``, ``tier``, ``reason``, ``state``: those of the attempt that the request ended with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: Timestamp | None = None
    until: Timestamp | None = None
    policy: Word | None = None
    tier: Tier | None = None
    reason: Reason | None = None
    state: State | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_REQUESTS)] = 100

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError("since must be before until")
        if self.state is State.OPEN:
            raise ValueError("state must not be open: the list holds requests that have ended")
        return self


class RequestRecord(Report):
    """One ended request in short.

    - ``at`` is the start of its final attempt in seconds since 1970, by the caller's clock.
    - ``tier``, ``exit_layer``, ``reason``, ``state``, ``label``, ``confidence``, ``error`` (the
      error's code) and ``trace_id`` are those of its final attempt.
    - ``total_ms`` is the caller's time from the decision to the end of the final attempt.
    - ``cost_lambda`` sums over its attempts and ``attempts`` counts them, without audits.
    """

    request_id: str
    at: float
    policy: str | None
    tier: Tier
    exit_layer: int | None
    reason: Reason | None
    state: State
    label: str | None
    confidence: float | None
    total_ms: float
    cost_lambda: float
    all_cloud_lambda: float | None
    attempts: int
    error: str | None
    trace_id: str | None = None

    @classmethod
    def of(cls, entries: Sequence[LedgerEntry]) -> RequestRecord | None:
        """Return the record of a request from its entries; None if it has not ended."""
        callers = [
            entry
            for entry in entries
            if entry.side is Side.CALLER and entry.reason is not Reason.AUDIT
        ]
        final = next((entry for entry in callers if entry.final), None)
        if final is None:
            return None
        return cls(
            request_id=final.request_id,
            at=final.started_at,
            policy=final.policy,
            tier=final.tier,
            exit_layer=final.exit_layer,
            reason=final.reason,
            state=final.state,
            label=final.label,
            confidence=final.confidence,
            total_ms=total_ms(min(callers, key=lambda entry: entry.ordinal), final),
            cost_lambda=sum(entry.cost_lambda or 0.0 for entry in callers),
            all_cloud_lambda=final.all_cloud_lambda,
            attempts=len(callers),
            error=final.error_code,
            trace_id=final.trace_id,
        )


def total_ms(first: LedgerEntry, final: LedgerEntry) -> float:
    """Return `RequestRecord.total_ms` of a request by its first and final attempt."""
    before_ms = max(0.0, (final.started_at - first.started_at) * 1e3)
    return (first.decision_ms or 0.0) + before_ms + (final.round_trip_ms or 0.0)


class RequestList(Report):
    """Answer of ``GET /v1/requests``: ended requests, newest first."""

    requests: list[RequestRecord]
