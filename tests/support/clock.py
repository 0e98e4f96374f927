"""A clock that tests set."""

from __future__ import annotations


class Clock:
    """Clock whose seconds pass when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now
