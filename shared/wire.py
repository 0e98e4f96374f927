"""Wire contracts: the JSON bodies between clients, mobile, edge and cloud."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from shared.domain import InputText, Reason, State, Tier
from shared.field_types import (
    Alpha,
    Amount,
    CostCeiling,
    Count,
    DeadlineMs,
    Duration,
    Identifier,
    Label,
    Layer,
    Name,
    Ordinal,
    ReplicaName,
    Share,
    TimeLeftMs,
    TraceId,
    Word,
)

MAX_TEXT_CHARS = 20_000
MAX_TEXTS = 1_000
MAX_BODY_BYTES = 4 * 1024 * 1024


class Contract(BaseModel):
    """Base of all JSON bodies, which refuse unknown fields and wrong types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class AttemptRequest(Contract):
    """Fields of every attempt at the edge or the cloud."""

    request_id: Identifier
    attempt_id: Identifier
    ordinal: Ordinal = 1
    deadline_ms: TimeLeftMs = 5_000.0
    alpha: Alpha | None = Field(
        None, description="exit threshold α of this request; default: the bundle's"
    )


class InferRequest(AttemptRequest):
    """``POST /v1/infer``: an attempt that starts from the text.

    The tier checks the strings with `shared.text.check_text`.
    """

    text: str
    pair: str | None = None
    bundle_id: Word | None = Field(None, description="refused with 409 if the tier runs another")


class ResumeRequest(AttemptRequest):
    """``POST /v1/resume``: an attempt that resumes from a hidden state.

    The fields are sent as headers, since the body is the encoded state. The text itself is not
    sent; its salted hash and its length are, for the tier's side of the ledger.
    """

    text_hash: Word | None = None
    text_chars: Count | None = None

    def headers(self) -> dict[str, str]:
        """Return a header for each field that is set: ``dimee-request-id`` and so on."""
        facts = self.model_dump(exclude_none=True)
        return {f"dimee-{name.replace('_', '-')}": str(value) for name, value in facts.items()}


class InferResponse(Contract):
    """A tier's answer, with its own queue, compute and total milliseconds.

    ``exit_layer`` counts from layer 1, also if the tier resumed after layer ``resumed_after``. A
    tier that resumes does not get the text and reports ``truncated`` as False.
    """

    attempt_id: Identifier
    tier: Annotated[Tier, Field(strict=False)]
    label: Label
    probabilities: dict[Label, Share]
    confidence: Share
    exit_layer: Layer
    resumed_after: Layer | None = None
    tokens: Count
    truncated: bool
    bundle_id: Name
    queue_ms: Duration
    compute_ms: Duration
    tier_ms: Duration

    def ledger_facts(self) -> dict[str, Any]:
        """Return the fields that both sides record of an answer, and that `verify` compares."""
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
    """``POST /v1/classify``: one text or many; ``pairs`` holds the second text of each."""

    texts: list[str]
    pairs: list[str] | None = None
    policy: Word | None = None
    deadline_ms: DeadlineMs | None = None
    mode: Word | None = None
    max_cost_lambda: CostCeiling | None = None


class AttemptReport(Contract):
    """One attempt from the mobile's side; the ledger has its full entry (``attempt_id``)."""

    attempt_id: Identifier
    tier: Annotated[Tier, Field(strict=False)]
    replica: ReplicaName | None = None
    reason: Annotated[Reason, Field(strict=False)]
    state: Annotated[State, Field(strict=False)]
    error_code: Word | None = None
    exit_layer: Layer | None = None
    resumed_after: Layer | None = None
    queue_ms: Duration | None = None
    compute_ms: Duration | None = None
    network_ms: Duration | None = None
    round_trip_ms: Duration | None = None
    sent_bytes: Count = 0
    received_bytes: Count = 0
    cost_lambda: Amount = 0.0


class CostReport(Contract):
    """A request's cost in λ and in money, and its cost in λ if the cloud alone had answered."""

    cost_lambda: Amount
    all_cloud_lambda: Amount
    cost_usd: Amount
    energy_mj: Amount
    price_book: Word


class Classification(Contract):
    """An answered request."""

    request_id: Identifier
    label: Label
    probabilities: dict[Label, Share]
    confidence: Share
    tier: Annotated[Tier, Field(strict=False)]
    exit_layer: Layer
    policy: Word
    difficulty: Word | None = None
    failed_over: bool = False
    """True if another tier replaced one that failed."""
    escalated: bool = False
    """True if another tier took over because the confidence was too low."""
    truncated: bool = False
    """True if the text was longer than the model reads."""
    degraded: bool = False
    """True if the answer is not from the tier that the policy preferred; see
    ``degraded_because``."""
    degraded_because: Word | None = None
    """``certificate``: an alarm found that the certificate does not hold, and all requests go to
    the cloud. ``offline``: the mobile answered because no server could be reached.
    ``unavailable``: the mobile answered because the servers failed or were too slow."""
    skipped: list[Annotated[Tier, Field(strict=False)]] = Field(default_factory=list)
    """Tiers that were skipped because they failed before."""
    cost_capped: bool = False
    """True if the cost ceiling excluded a tier."""
    budget_exhausted: bool = False
    """True if the answer was not escalated because the client has no escalations left. No
    certificate covers such an answer."""
    certificate_id: Word | None = None
    """The certificate that covers the answer."""
    tokens: Count
    decision_ms: Duration
    total_ms: Duration
    bundle_id: Name
    attempts: list[AttemptReport]
    cost: CostReport
    trace_id: TraceId | None = None
    """Trace of the request, if its caller sent one or the mobile records traces."""

    @property
    def from_chosen_tier(self) -> bool:
        """True if the tier that the policy chose gave the answer; an escalation is its choice too.

        False if another tier replaced one that failed or was slow, or if the mobile kept an answer
        for lack of servers or of the client's escalations.
        """
        kept = self.budget_exhausted or self.degraded_because in ("offline", "unavailable")
        if kept or not self.attempts:
            return not kept
        last = self.attempts[-1]
        # a hedge and a retry may go to another replica of the same tier, or to another tier
        chosen = {
            one.tier for one in self.attempts if one.reason in (Reason.ROUTE, Reason.ESCALATE)
        }
        return last.reason is not Reason.FAIL_OVER and last.tier in chosen


class ClassifyItem(Contract):
    """Outcome of one text: a result, or the error with which its request ended."""

    result: Classification | None = None
    error: dict[str, Any] | None = None


class ClassifyResponse(Contract):
    """Outcomes in the order of the texts; one failure does not affect the others."""

    items: list[ClassifyItem]


class BundleDescription(Contract):
    """``GET /v1/bundle``: the task of the gateway's bundle, and its sample texts."""

    bundle_id: Name
    task: Name
    labels: list[Label]
    pairs: bool
    """True if each text needs a second text."""
    fields: dict[str, str] = {}
    """Names of the fields ``text``, ``pair`` and ``label`` in the data of the training."""
    samples: list[InputText] = []
    """Texts of the bundle's task, from easy to hard; empty if the bundle has none."""
