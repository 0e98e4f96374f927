"""Reads a tier's response: its answer, its error, or what another server has sent in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import httpx
from pydantic import ValidationError

from shared.answer_rules import AnswerRules
from shared.domain import Delivery, Tier
from shared.errors import (
    AttemptRepeated,
    BundleMismatch,
    DeadlineExceeded,
    DimeeError,
    Forbidden,
    InvalidInput,
    NotAdmitted,
    NotFound,
    NotReady,
    Overloaded,
    RateLimited,
    TierFailed,
    Unauthorised,
    from_payload,
    is_error_document,
)
from shared.http_fetch import parse_json
from shared.wire import InferResponse

_MAX_ERROR_BYTES = 64 * 1024
_TIER_ERRORS = (
    AttemptRepeated,
    BundleMismatch,
    Overloaded,
    NotReady,
    DeadlineExceeded,
    TierFailed,
)
"""Errors that a tier answers to a text that the mobile has already checked."""
_STATE_ERRORS = (*_TIER_ERRORS, InvalidInput, NotFound)
"""Errors that a tier answers to a hidden state, after which the text may be sent."""


class Content(NamedTuple):
    """Content of a response: an answer or an error, and whether the tier has got the attempt."""

    delivery: Delivery
    answer: InferResponse | None = None
    error: DimeeError | None = None


@dataclass(frozen=True, slots=True)
class ResponseReader:
    """Reads the responses of one tier, to which its answers comply by ``rules``.

    ``shown_url`` is the tier's address in messages. Only a valid answer, or an error in the form of
    this project, proves that the tier has got an attempt: a load balancer answers in its own form.
    """

    tier: Tier
    shown_url: str
    rules: AnswerRules

    def read(
        self, status: int, body: bytes, attempt_id: str, after: int | None, round_trip_ms: float
    ) -> Content:
        """Read the response to an attempt; ``after`` is the layer of its hidden state, or None."""
        if status != httpx.codes.OK:
            return self._read_error(status, body, after)
        try:
            answer = InferResponse.model_validate_json(body)
        except ValidationError:
            problem: str | None = "in an unknown format; run the same version of dimee everywhere"
        else:
            problem = self.rules.problem(answer, attempt_id, after, round_trip_ms)
        if problem is None:
            return Content(Delivery.ARRIVED, answer)
        # another server may have answered, and this tier then has no entry
        return Content(Delivery.UNKNOWN, error=self.invalid(problem))

    def _read_error(self, status: int, body: bytes, after: int | None) -> Content:
        payload = parse_json(body) if len(body) <= _MAX_ERROR_BYTES else None
        error = from_payload(payload, status)
        if isinstance(error, Unauthorised | Forbidden):
            # auth and rate limits refuse before the tier records the attempt
            refusal = NotAdmitted(
                f"the {self.tier} at {self.shown_url} does not admit this mobile ({error.code}); "
                "set DIMEE_TOKEN or DIMEE_TOKEN_FILE to a token of that tier with the scope infer"
            )
            return Content(Delivery.UNKNOWN, error=refusal)
        expected = _TIER_ERRORS if after is None else _STATE_ERRORS
        if is_error_document(payload, status) and isinstance(error, expected):
            # A rate limit and the limit of arriving bodies refuse before the tier records the
            # attempt, the entry of a repeated attempt belongs to its first exchange, and a tier
            # whose disk is full is not ready and cannot record that: none of them must have an
            # entry.
            unrecorded = isinstance(error, RateLimited | AttemptRepeated | NotReady)
            unrecorded |= isinstance(error, Overloaded) and error.field is not None
            return Content(Delivery.UNKNOWN if unrecorded else Delivery.ARRIVED, error=error)
        invalid = self.invalid(
            f"with status {status}, which is not an answer of a tier to a valid text; correct its "
            "address, or run the same version of dimee everywhere"
        )
        return Content(Delivery.UNKNOWN, error=invalid)

    def invalid(self, problem: str) -> TierFailed:
        """Return the error for a response that is none of the tier's."""
        return TierFailed(f"the {self.tier} at {self.shown_url} answered {problem}")
