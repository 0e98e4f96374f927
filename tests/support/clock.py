"""A clock that tests set."""

from __future__ import annotations


class Clock:
    """A clock in seconds; set ``now`` to change it."""

    now = 100.0

    def __call__(self) -> float:
        return self.now
