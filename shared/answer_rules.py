"""Checks that a tier's answer is a valid answer to the attempt that asked for it."""

from __future__ import annotations

from dataclasses import dataclass

from shared.domain import LayerRange, Tier
from shared.wire import InferResponse

MAX_ANSWER_BYTES = 1024 * 1024
"""Largest body of an answer; 1,000 labels of 256 characters fit in."""
TOLERANCE = 1e-3
"""Largest difference of a confidence from its label's probability, and of a sum from 1."""
CLOCK_SLACK_MS = 100.0
"""A tier's times may exceed the caller's round trip by this much and a tenth, because the two
machines' clocks do not run at exactly the same rate."""


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """Values that every answer of one tier must have.

    ``exits`` are the layers at which the tier answers, resumed attempts included. An answer outside
    them would be charged wrongly, as would times longer than the caller waited.
    """

    tier: Tier
    bundle_id: str
    labels: tuple[str, ...]
    exits: LayerRange
    max_tokens: int

    def problem(
        self,
        answer: InferResponse,
        attempt_id: str,
        resumed_after: int | None,
        round_trip_ms: float,
    ) -> str | None:
        """Return why the answer is not valid, with what to do; None if it is valid.

        ``resumed_after`` is the layer of the hidden state that was sent, or None for a text.
        `InferResponse` has already checked the type and the range of each field.
        """
        first, last = max(self.exits.first, (resumed_after or 0) + 1), self.exits.last
        if answer.attempt_id != attempt_id:
            return "with the answer to another attempt; send its requests to one server only"
        if answer.tier is not self.tier:
            return f"as the {answer.tier}; correct its address"
        if answer.bundle_id != self.bundle_id:
            return f"from the bundle {answer.bundle_id[:64]!r}; start both with {self.bundle_id}"
        if not first <= answer.exit_layer <= last:
            return (
                f"at layer {answer.exit_layer}, and it has exits from {first} to {last}; "
                "start all tiers with the same DIMEE_EDGE_LAYERS"
            )
        wrong = self._wrong_field(answer, resumed_after, round_trip_ms)
        if wrong is not None:
            return f"with a wrong {wrong}; run the same version of dimee everywhere"
        return None

    def says_ready(self, readiness: object) -> bool:
        """Return True if the JSON value of ``/readyz`` is this tier's own, with the same bundle."""
        ready = {"status": "ready", "tier": self.tier.value, "bundle_id": self.bundle_id}
        return isinstance(readiness, dict) and all(
            readiness.get(name) == value for name, value in ready.items()
        )

    def _wrong_field(
        self, answer: InferResponse, resumed_after: int | None, round_trip_ms: float
    ) -> str | None:
        probabilities = answer.probabilities
        own = probabilities.get(answer.label)
        # comparisons with NaN are false, so that each is written to hold for a valid answer
        if answer.resumed_after != resumed_after:
            return "resumed_after"
        if not 1 <= answer.tokens <= self.max_tokens:
            return "number of tokens"
        if own is None or probabilities.keys() != set(self.labels):
            return "label"
        values = probabilities.values()
        if not (min(values) >= 0 and abs(sum(values) - 1) <= TOLERANCE):
            return "probability"
        if not (own >= max(values) - TOLERANCE and abs(own - answer.confidence) <= TOLERANCE):
            return "confidence"
        longest_ms = round_trip_ms * 1.1 + CLOCK_SLACK_MS
        if not (answer.tier_ms <= longest_ms and answer.compute_ms <= longest_ms):
            return "time"
        return None if answer.queue_ms <= longest_ms else "time"
