"""Domain types that all packages share. This module imports nothing of the project."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Tier(StrEnum):
    """Place of execution."""

    MOBILE = "mobile"
    EDGE = "edge"
    CLOUD = "cloud"


class Difficulty(StrEnum):
    """The paper's difficulty classes (pools), each with its own tier."""

    EASY = "easy"
    MODERATE = "moderate"
    HARD = "hard"

    @property
    def tier(self) -> Tier:
        """Tier of the class: easy on the mobile, moderate on the edge, hard in the cloud."""
        return _TIER_OF[self]


_TIER_OF = {
    Difficulty.EASY: Tier.MOBILE,
    Difficulty.MODERATE: Tier.EDGE,
    Difficulty.HARD: Tier.CLOUD,
}


@dataclass(frozen=True, slots=True)
class InputText:
    """A text, or a pair of texts, to classify; ``label`` is its label's name if it is known."""

    text: str
    pair: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class LayerRange:
    """Layers ``first`` to ``last``, 1-based and inclusive."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.last:
            raise ValueError(f"layers {self.first}..{self.last}: 1 <= first <= last must hold")


@dataclass(frozen=True, slots=True)
class Expectation:
    """Prediction of the correctness heads for a text, before a layer runs.

    ``expected`` holds the K probabilities of `shared.bundle.correctness_heads.CorrectnessHeads`,
    ``lead`` the difference of each tier's and the cloud's probability of a right answer.
    ``margin`` and ``label`` are the embedding classifier's. ``length`` is the logarithm of the
    number of tokens.
    """

    expected: tuple[float, ...]
    lead: tuple[float, ...]
    margin: float
    length: float
    label: int


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """First tier of a request, how it answers, and the inputs of the decision.

    The defaults are the paper's: the mobile compares the confidence of its exits 1..m with the
    bundle's α, and answers at exit m with any confidence.

    - ``alpha``: another threshold, which also applies at the edge.
    - ``first_exit``, ``last_layer``: the first exit to use and the last layer to run on the mobile.
    - ``escalate_to``: tier that takes over an answer below the threshold.
    - ``difficulty``, ``distances``: chosen pool, and distance to each centroid.
    - ``expected_values``, ``expectation``: of `cascade-routing`; None for a tier that could not
      answer.
    - ``delay_ms``, ``latency_price_lambda``: the delay of each tier (None if unknown) and the price
      of waiting a millisecond that `cascade-routing` used.
    """

    tier: Tier
    policy: str
    difficulty: Difficulty | None = None
    distances: tuple[float, ...] | None = None
    alpha: float | None = None
    first_exit: int = 1
    last_layer: int | None = None
    escalate_to: Tier | None = None
    expected_values: tuple[float | None, ...] | None = None
    expectation: Expectation | None = None
    delay_ms: tuple[float | None, ...] | None = None
    latency_price_lambda: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a decision: tier, exit layer and confidence of the answer, and its cost in λ.

    ``cost_lambda`` is that of all attempts of the request so far. ``label`` is the index of the
    answer's label. ``margin`` is the difference of the two largest probabilities; NaN if they are
    unknown, as in a replay of ledger entries.
    """

    tier: Tier
    exit_layer: int
    confidence: float
    cost_lambda: float
    label: int = -1
    margin: float = math.nan


def margin_of(probabilities: Sequence[float]) -> float:
    """Return the difference of the two largest of at least two probabilities."""
    second, first = sorted(map(float, probabilities))[-2:]
    return first - second


@dataclass(frozen=True, slots=True)
class Prediction:
    """Answer of an exit; ``exit_layer`` is 1-based, the number of executed layers."""

    label_index: int
    probabilities: tuple[float, ...]
    confidence: float
    exit_layer: int

    def __reduce__(self) -> tuple[type[Prediction], tuple[int, tuple[float, ...], float, int]]:
        """Pickle faster: the default for a dataclass with slots takes ten times as long."""
        values = self.label_index, self.probabilities, self.confidence, self.exit_layer
        return Prediction, values


class Side(StrEnum):
    """Writer of an entry: the caller of a tier, or the tier."""

    CALLER = "caller"
    TIER = "tier"


class State(StrEnum):
    """State of an attempt; all states except ``OPEN`` are terminal."""

    OPEN = "open"
    ANSWERED = "answered"
    REFUSED = "refused"  # by the tier: invalid, overloaded, not ready, another bundle
    FAILED = "failed"  # unreachable, connection broken, or an error inside the tier
    TIMED_OUT = "timed_out"
    ABANDONED = "abandoned"  # the writer ended or was cancelled before the attempt ended


class Reason(StrEnum):
    """Reason for an attempt."""

    ROUTE = "route"
    ESCALATE = "escalate"
    FAIL_OVER = "fail_over"
    RETRY = "retry"
    HEDGE = "hedge"
    AUDIT = "audit"  # compares an answer with the cloud's, after the request has ended


class Delivery(StrEnum):
    """Caller's knowledge of whether an attempt reached the tier.

    `verify` uses it to decide whether the tier must have an entry of the attempt. ``ARRIVED``: the
    tier answered or refused, so it has an entry. ``NOT_SENT``: there was no connection, so it has
    none. ``UNKNOWN``: no response arrived, or authentication or rate limiting rejected the request;
    the tier may have an entry.
    """

    ARRIVED = "arrived"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"
