"""Counts and percentiles of the answers of a load run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from testbed.load.http_client import Answer


@dataclass
class Tally:
    """Latencies in seconds by status; status 0 stands for no answer.

    ``late_s`` has the lateness of each request when it was sent, if ``counts_lateness``.
    """

    by_status: dict[int, list[float]] = field(default_factory=dict)
    late_s: list[float] = field(default_factory=list)
    counts_lateness: bool = False
    connections: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        self.by_status.setdefault(answer.status, []).append(answer.latency_s)
        if self.counts_lateness:
            self.late_s.append(answer.late_s)

    def count(self, status: int) -> int:
        """Return the number of answers with a status."""
        return len(self.by_status.get(status, ()))

    @property
    def total(self) -> int:
        """Number of requests."""
        return sum(map(len, self.by_status.values()))

    def ms(self, status: int, percent: float) -> float | None:
        """Return a percentile of the latency in ms; None without an answer of this status."""
        return percentile_ms(self.by_status.get(status, []), percent)

    def late_ms(self, percent: float) -> float | None:
        """Return a percentile of the lateness in ms; None where it was not counted."""
        return percentile_ms(self.late_s, percent)


def percentile_ms(seconds: Sequence[float], percent: float) -> float | None:
    """Return a percentile in ms of durations in seconds; None if there are none."""
    return round(1e3 * float(np.percentile(seconds, percent)), 2) if seconds else None
