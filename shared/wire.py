"""The wire contracts: what crosses HTTP between people, mobile, edge and cloud."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from shared.domain import Reason, State, Tier
from shared.field_types import Count, Duration, Identifier, Word

MAX_TEXT_CHARS = 20_000
MAX_TEXTS = 1_000
MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_DEADLINE_MS = 60_000

DeadlineMs = Annotated[float, Field(gt=0, le=MAX_DEADLINE_MS, allow_inf_nan=False)]
Alpha = Annotated[float, Field(gt=0, le=1)]


class Contract(BaseModel):
    """Unknown fields are refused, and types are not guessed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class AttemptRequest(Contract):
    """What every attempt at the edge or the cloud says of itself."""

    request_id: Identifier
    attempt_id: Identifier
    ordinal: Annotated[int, Field(ge=1, le=1000)] = 1
    deadline_ms: DeadlineMs = 5_000.0
    alpha: Alpha | None = Field(
        None, description="exit threshold of this request; the bundle's if left out"
    )


class InferRequest(AttemptRequest):
    """``POST /v1/infer``: an attempt that starts from the text.

    Strings are checked by `shared.text.check_text`, which says in one sentence what is wrong.
    """

    text: str
    pair: str | None = None
    bundle_id: Word | None = Field(None, description="refused with 409 if the tier runs another")


class ResumeRequest(AttemptRequest):
    """``POST /v1/resume``: an attempt that goes on from a hidden state.

    These facts travel as headers, since the body is the state and nothing else. The text does not
    cross: its salted hash and its length do, so that the tier's side of the ledger has them.
    """

    text_hash: Word | None = None
    text_chars: Count | None = None

    def headers(self) -> dict[str, str]:
        """``dimee-request-id`` and so on, a header for each fact that there is."""
        facts = self.model_dump(exclude_none=True)
        return {f"dimee-{name.replace('_', '-')}": str(value) for name, value in facts.items()}


class InferResponse(Contract):
    """A tier's answer, with its own queue, compute and total milliseconds.

    ``exit_layer`` counts from layer 1, also where the tier went on from ``resumed_after``; such a
    tier has not seen the text and calls nothing ``truncated``.
    """

    attempt_id: str
    tier: Annotated[Tier, Field(strict=False)]
    label: str
    probabilities: dict[str, float]
    confidence: float
    exit_layer: int
    resumed_after: int | None = None
    tokens: int
    truncated: bool
    bundle_id: str
    queue_ms: Duration
    compute_ms: Duration
    tier_ms: Duration

    def ledger_facts(self) -> dict[str, Any]:
        """What both sides book of an answer; `verify` compares them."""
        return {
            "state": State.ANSWERED,
            "label": self.label,
            "confidence": self.confidence,
            "exit_layer": self.exit_layer,
            "resumed_after": self.resumed_after,
            "tokens": self.tokens,
            "queue_ms": self.queue_ms,
            "compute_ms": self.compute_ms,
            "tier_ms": self.tier_ms,
        }


class ClassifyRequest(Contract):
    """``POST /v1/classify``: one text or many; ``pairs`` go with ``texts`` one to one."""

    texts: list[str]
    pairs: list[str] | None = None
    policy: Word | None = None
    deadline_ms: DeadlineMs | None = None
    mode: Word | None = None
    max_cost_lambda: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None


class AttemptReport(Contract):
    """One attempt as the mobile saw it; the ledger's row of the same ``attempt_id`` says more."""

    attempt_id: str
    tier: Annotated[Tier, Field(strict=False)]
    reason: Annotated[Reason, Field(strict=False)]
    state: Annotated[State, Field(strict=False)]
    error_code: str | None = None
    exit_layer: int | None = None
    resumed_after: int | None = None
    queue_ms: float | None = None
    compute_ms: float | None = None
    network_ms: float | None = None
    round_trip_ms: float | None = None
    sent_bytes: int = 0
    received_bytes: int = 0
    cost_lambda: float = 0.0


class CostReport(Contract):
    """A request's cost in both books, and what the cloud alone would have cost in λ."""

    cost_lambda: float
    all_cloud_lambda: float
    cost_usd: float
    energy_mj: float
    price_book: str


class Classification(Contract):
    """An answered request.

    ``certificate_id`` names the promise that it was answered under; ``degraded``: the promise was
    found not to hold, and the request went to the cloud for that, or (``degraded_because`` other
    than ``promise``) the mobile answered for want of a server that did: ``offline``, nobody could
    be reached; ``unavailable``, they failed or were too slow. ``skipped``: tiers that were left
    alone because they had failed again and again. ``capped``: another tier would have been asked,
    but the cost ceiling does not pay for it. ``budget_exhausted``: another tier would have been
    asked, but the client has no escalations left; such an answer is under no promise.
    """

    request_id: str
    label: str
    probabilities: dict[str, float]
    confidence: float
    tier: Annotated[Tier, Field(strict=False)]
    exit_layer: int
    policy: str
    difficulty: str | None = None
    failed_over: bool = False
    escalated: bool = False
    truncated: bool = False
    degraded: bool = False
    degraded_because: Word | None = None
    skipped: list[Annotated[Tier, Field(strict=False)]] = Field(default_factory=list)
    capped: bool = False
    budget_exhausted: bool = False
    certificate_id: str | None = None
    tokens: int
    decision_ms: float
    total_ms: float
    bundle_id: str
    attempts: list[AttemptReport]
    cost: CostReport


class ClassifyItem(Contract):
    """One text's outcome in an answer of many: a result, or the error it ended with."""

    result: Classification | None = None
    error: dict[str, Any] | None = None


class ClassifyResponse(Contract):
    """The outcomes in the order of the texts; one that failed does not spoil the others."""

    items: list[ClassifyItem]
