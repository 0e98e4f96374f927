"""Shared by tests: Clock."""

from __future__ import annotations


class Clock:
    """Seconds that pass when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now
