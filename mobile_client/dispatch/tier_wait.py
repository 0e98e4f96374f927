"""Time that a call to the gateway spends waiting for other tiers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(slots=True)
class TierWait:
    """Sum of the seconds in which a call waited for an exchange with a tier, or for a retry."""

    clock: Callable[[], float] = field(default=time.perf_counter)
    total_s: float = 0.0


_current: ContextVar[TierWait | None] = ContextVar("tier_wait", default=None)


@contextmanager
def measure_tier_wait(wait: TierWait) -> Iterator[None]:
    """Add all waits for tiers within the block, also those of its tasks, to ``wait``."""
    token = _current.set(wait)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def waiting_for_tier() -> Iterator[None]:
    """Count the duration of the block as a wait for a tier; both attempts of a hedge are one."""
    wait = _current.get()
    if wait is None:
        yield
        return
    started = wait.clock()
    try:
        yield
    finally:
        wait.total_s += wait.clock() - started
