"""Input events and output actions of `RequestState`."""

from __future__ import annotations

from dataclasses import dataclass

from mobile_client.local.runtime import TierAnswer
from mobile_client.resilience.replica_stats import ReplicaStats
from shared.domain import Delivery, Reason, Tier
from shared.errors import DimeeError


@dataclass(frozen=True, slots=True)
class Started:
    """The request was routed. For ``preferred`` see `Answered`."""

    preferred: Tier | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """An attempt ended with an answer.

    ``escalate_to`` is the tier that the policy escalates to. ``preferred`` is the tier that the
    policy would have chosen instead of the mobile if every server were available.
    """

    tier: Tier
    answer: TierAnswer
    cost_lambda: float
    escalate_to: Tier | None = None
    preferred: Tier | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt ended without an answer; ``resumed`` if the tier was sent a hidden state.

    ``replica`` is the replica that it was sent to. ``reused_connection_broke`` is True if an idle
    connection broke before a byte of the answer.
    """

    tier: Tier
    error: DimeeError
    delivery: Delivery
    cost_lambda: float
    resumed: bool = False
    reused_connection_broke: bool = False
    replica: ReplicaStats | None = None


@dataclass(frozen=True, slots=True)
class HedgeDue:
    """The attempt at ``tier`` has taken longer than 95 % of its round trips."""

    tier: Tier


@dataclass(frozen=True, slots=True)
class HedgeEnded:
    """The attempt of a hedged pair that is not used has ended; without ``error`` by cancelling."""

    tier: Tier
    cost_lambda: float
    error: DimeeError | None = None


@dataclass(frozen=True, slots=True)
class MakeAttempt:
    """Make an attempt at ``tier``, and at this ``replica`` of a server, after ``wait_ms``.

    After ``hedge_after_ms`` without an answer send `HedgeDue`. ``time_share`` is the share of the
    remaining time that the attempt may take. ``reuses`` is the earlier answer that the mobile
    returns without running its layers. ``fresh_connection`` excludes the connections that are open.
    """

    tier: Tier
    reason: Reason
    ordinal: int
    wait_ms: float = 0.0
    hedge_after_ms: float | None = None
    time_share: float = 1.0
    reuses: TierAnswer | None = None
    fresh_connection: bool = False
    replica: ReplicaStats | None = None


@dataclass(frozen=True, slots=True)
class Accept:
    """Return the answer of the attempt that has ended."""

    answer: TierAnswer


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Raise the error: no tier answered."""

    error: DimeeError


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for the attempts that are still running."""


Event = Started | Answered | Failed | HedgeDue | HedgeEnded
Action = MakeAttempt | Accept | GiveUp | Wait
