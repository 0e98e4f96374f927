"""The ledger's entry: one side's record of one attempt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from shared.domain import Delivery, Difficulty, Reason, Side, State, Tier
from shared.errors import TierFailed
from shared.field_types import (
    Amount,
    Count,
    Duration,
    FreeText,
    Identifier,
    Label,
    Layer,
    Ordinal,
    ReplicaName,
    Share,
    SpanId,
    Timestamp,
    TraceId,
    Word,
)
from shared.validation import first_error

PROCESS_DIED = "process_died"
"""Error code of an attempt whose process died: a later process ended it, as abandoned."""


class LedgerEntry(BaseModel):
    """One side's record of one attempt; the key is (``attempt_id``, ``side``).

    - Durations are in milliseconds, by the writer's own clock. ``started_at`` (seconds since 1970)
      is for display and never compared across machines.
    - The text is not recorded: ``text_hash`` is salted, ``text_chars`` is its length.
    - ``replica`` is the replica of the tier that did the work, by its ``DIMEE_REPLICA``. The caller
      knows it from the response, or from earlier ones of the same address; None on the mobile.
    - ``resumed_after`` is the layer whose hidden state the tier continued from; None if it started
      from the text.
    - ``decision`` is JSON on a request's first attempt: the policy's inputs and results.
    - ``certificate_id`` names the certificate that covered the request; ``degraded`` means that
      this certificate was known not to hold.
    - Only the caller records costs and energy, so that their sum counts each attempt once.
    - ``final`` marks the attempt that the request ended with.
    - ``trace_id`` is the request's trace, from the caller's ``traceparent`` or begun here;
      ``span_id`` is this side's span in it, if that was recorded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    attempt_id: Identifier
    side: Side
    request_id: Identifier
    ordinal: Ordinal = 1
    tier: Tier
    replica: ReplicaName | None = None
    state: State
    reason: Reason | None = None
    policy: Word | None = None
    difficulty: Difficulty | None = None
    writer: Word = ""
    bundle_id: Word = ""
    started_at: Timestamp
    delivery: Delivery | None = None
    error_code: Word | None = None
    text_hash: Word | None = None
    text_chars: Count | None = None
    tokens: Count | None = None
    label: Label | None = None
    confidence: Share | None = None
    exit_layer: Layer | None = None
    resumed_after: Layer | None = None
    decision_ms: Duration | None = None
    queue_ms: Duration | None = None
    compute_ms: Duration | None = None
    tier_ms: Duration | None = None
    round_trip_ms: Duration | None = None
    network_ms: Duration | None = None
    sent_bytes: Count = 0
    received_bytes: Count = 0
    cost_lambda: Amount | None = None
    all_cloud_lambda: Amount | None = None
    cost_usd: Amount | None = None
    energy_mj: Amount | None = None
    price_book: Word | None = None
    final: bool = False
    decision: FreeText | None = None
    certificate_id: Word | None = None
    degraded: bool | None = None
    trace_id: TraceId | None = None
    span_id: SpanId | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.state is State.ANSWERED and (self.exit_layer is None or self.label is None):
            raise ValueError("an answered attempt needs exit_layer and label")
        if self.side is Side.TIER and self.delivery is not None:
            raise ValueError(
                "delivery is recorded by the caller only; leave it out on the tier's side"
            )
        return self

    def with_facts(self, facts: Mapping[str, Any]) -> LedgerEntry:
        """Return a copy with other values, checked, so that the ledger accepts it.

        Raises `TierFailed` for a value that the ledger would refuse, such as a confidence of NaN.
        """
        # defaults need no check, and most fields have theirs
        values = self.__dict__
        given = {name: values[name] for name in self.model_fields_set}
        try:
            return LedgerEntry.model_validate({**given, **facts})
        except ValidationError as error:
            field, problem = first_error(error, whole="entry")
            raise TierFailed(
                f"the attempt has no valid result ({field}: {problem}); check the bundle of the "
                f"{self.tier} with: dimee classify"
            ) from None

    @property
    def is_terminal(self) -> bool:
        """True if the attempt has ended for this side."""
        return self.state is not State.OPEN

    @property
    def is_end(self) -> bool:
        """True if the attempt has ended, and the end is known rather than assumed."""
        return self.is_terminal and self.error_code != PROCESS_DIED
