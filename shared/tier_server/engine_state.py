"""Queue, work in progress and totals of an engine, for metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineState:
    """Queue, work in progress and totals of an engine.

    ``refusals`` counts refused requests by reason. ``busy_ms`` is the sum of the time in which each
    worker had rows to run.
    """

    waiting: int
    in_progress: int
    expected_wait_ms: float
    overloaded: bool
    refusals: dict[str, int]
    computed_texts: int
    busy_ms: float
