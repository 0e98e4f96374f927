"""Types of an explanation of one request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from shared.domain import Difficulty, Tier


@dataclass(frozen=True, slots=True)
class TierView:
    """Facts about starting at one tier; None where a fact does not apply or was not recorded.

    - ``right``, ``confident``: probabilities that its answer is right, and that its confidence
      reaches α.
    - ``escalates_confident``, ``escalates_not_confident``: shares of its typical answers, with
      confidence at least α and below, that escalate to each other tier; the others stay.
    - ``threshold_target``: the tier that gets every answer below α in the plan that the expected
      value comes from; None if that plan decides after the answer.
    - ``cost_lambda``: expected cost, escalations included; ``min_lambda`` and ``max_lambda`` bound
      the cost for policies without an expectation. All three are at the present prices.
    - ``delay_ms``: delay that the mobile had measured. ``waiting_lambda``: expected price of
      waiting, in λ.
    - ``expected_value``: in probability of a right answer; None if the tier could not answer.
    - ``difficulty``, ``distance``: the tier's pool, and the distance to its centroid.
    - ``recorded_lambda``, ``recorded_usd``: cost of its answer to this request.
    """

    tier: Tier
    right: float | None = None
    confident: float | None = None
    escalates_confident: dict[Tier, float] | None = None
    escalates_not_confident: dict[Tier, float] | None = None
    threshold_target: Tier | None = None
    cost_lambda: float | None = None
    min_lambda: float | None = None
    max_lambda: float | None = None
    delay_ms: float | None = None
    waiting_lambda: float | None = None
    expected_value: float | None = None
    difficulty: Difficulty | None = None
    distance: float | None = None
    recorded_lambda: float | None = None
    recorded_usd: float | None = None


@dataclass(frozen=True, slots=True)
class EscalationOption:
    """Escalation of an answer to ``tier``.

    ``gain`` is in probability of a right answer. ``cost`` is Λ times the λ of the escalation,
    ``cost_lambda`` + ``waiting_lambda``, and thus also a probability.
    """

    tier: Tier
    gain: float
    cost_lambda: float
    waiting_lambda: float
    cost: float

    @property
    def net_gain(self) -> float:
        """Gain less cost; the policy escalates if it is positive."""
        return self.gain - self.cost


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One attempt: its answer, the probability that it is right, and the escalation options."""

    ordinal: int
    tier: Tier
    reason: str
    state: str
    verdict: str
    error_code: str | None = None
    label: str | None = None
    confidence: float | None = None
    exit_layer: int | None = None
    right: float | None = None
    options: list[EscalationOption] = field(default_factory=list)
    round_trip_ms: float | None = None
    cost_lambda: float | None = None
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Explanation of one request.

    ``why`` explains the first tier in one sentence, and ``notes`` list limits of the explanation.
    ``decided_by`` names the figure of `TierView` that the policy compared: ``expected_value``, of
    which the highest decides, or ``distance``, of which the lowest decides; None if no figure does.
    ``cost_weight`` is Λ. ``latency_price_lambda`` is the price of waiting one millisecond, in λ,
    that the decision used.
    """

    request_id: str
    policy: str
    bundle_id: str
    alpha: float | None
    cost_weight: float | None
    why: str
    tiers: list[TierView]
    attempts: list[AttemptView]
    notes: list[str]
    certificate_id: str | None = None
    latency_price_lambda: float | None = None
    decided_by: Literal["expected_value", "distance"] | None = None
    trace_id: str | None = None


def percentage_points(probability: float, sign: bool = True) -> str:
    """Return a difference of probabilities in percentage points."""
    return f"{100 * probability:{'+' if sign else ''}.2f} points"
