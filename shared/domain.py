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
        """Easy samples belong on the phone, moderate ones on the edge, hard ones in the cloud."""
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
class RoutingDecision:
    """Where a request is answered first, and why."""

    tier: Tier
    policy: str
    difficulty: Difficulty | None = None
    distances: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """An exit's answer: ``exit_layer`` is 1-based, the number of layers executed."""

    label_index: int
    probabilities: tuple[float, ...]
    confidence: float
    exit_layer: int
