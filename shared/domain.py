"""The words of the domain as types. Imports nothing of the project."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Tier(StrEnum):
    """A place of execution."""

    MOBILE = "mobile"
    EDGE = "edge"
    CLOUD = "cloud"


class Difficulty(StrEnum):
    """The paper's difficulty classes (pools), each answered at its own tier."""

    EASY = "easy"
    MODERATE = "moderate"
    HARD = "hard"

    @property
    def tier(self) -> Tier:
        """Easy samples belong on the mobile, moderate ones on the edge, hard ones in the cloud."""
        return _TIER_OF[self]


_TIER_OF = {
    Difficulty.EASY: Tier.MOBILE,
    Difficulty.MODERATE: Tier.EDGE,
    Difficulty.HARD: Tier.CLOUD,
}


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
    """What the correctness heads expect of a text before a layer is run: numbers, not the text.

    ``expected`` holds the K probabilities of `shared.bundle.correctness_heads.CorrectnessHeads`,
    ``lead`` the expected lead of each tier over the cloud; ``margin`` and ``label`` are exit 0's,
    ``length`` is the logarithm of the number of tokens.
    """

    expected: tuple[float, ...]
    lead: tuple[float, ...]
    margin: float
    length: float
    label: int


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """Where a request is answered first, how, and why.

    The defaults are the paper's: the mobile asks its exits 1..m against the bundle's α and answers
    at its last one whatever its confidence. A policy may choose another threshold (``alpha``; it
    goes with the request to the edge), run the mobile deeper or less deep (``last_layer``), leave
    out the exits before ``first_exit``, or name the tier that takes over an answer below the
    threshold (``escalate_to``). ``expected_values`` are what `cascade-routing` found starting at
    each tier to be worth (None: not possible), ``expectation`` what it knew of the text,
    ``delay_ms`` what it knew of each tier's delay (None: nothing), ``latency_price_lambda`` the
    price of waiting that it weighed them by.
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
    """What came of a decision: who answered, where it stopped, how sure, at what cost in λ.

    ``label`` is the index of the answer.
    """

    tier: Tier
    exit_layer: int
    confidence: float
    cost_lambda: float
    label: int = -1


@dataclass(frozen=True, slots=True)
class Prediction:
    """An exit's answer: ``exit_layer`` is 1-based, the number of layers executed."""

    label_index: int
    probabilities: tuple[float, ...]
    confidence: float
    exit_layer: int

    def __reduce__(self) -> tuple[type[Prediction], tuple[int, tuple[float, ...], float, int]]:
        """A dataclass with slots is pickled ten times as slowly; every answer of a tier is."""
        values = self.label_index, self.probabilities, self.confidence, self.exit_layer
        return Prediction, values


class Side(StrEnum):
    """Who wrote the entry: the caller (what it asked and waited for) or the tier (what it did)."""

    CALLER = "caller"
    TIER = "tier"


class State(StrEnum):
    """``OPEN`` until the attempt ends; every other state is terminal."""

    OPEN = "open"
    ANSWERED = "answered"
    REFUSED = "refused"  # the tier said no: invalid, overloaded, not ready, another bundle
    FAILED = "failed"  # unreachable, broken off, or failed inside
    TIMED_OUT = "timed_out"
    ABANDONED = "abandoned"  # the writer died or was cancelled before the attempt ended


class Reason(StrEnum):
    """Why the attempt was made."""

    ROUTE = "route"
    ESCALATE = "escalate"
    FAIL_OVER = "fail_over"
    RETRY = "retry"
    HEDGE = "hedge"
    AUDIT = "audit"  # the cloud is asked of an answered text as well, to check the answer


class Delivery(StrEnum):
    """What the caller knows of the attempt's arrival; decides whether a partner must exist.

    ``ARRIVED``: an answer or a refusal came back, so the tier has booked it. ``NOT_SENT``: no
    connection was made, so it cannot have. ``UNKNOWN``: sent, and nothing came back, or the tier's
    door refused it before the tier saw it.
    """

    ARRIVED = "arrived"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"
