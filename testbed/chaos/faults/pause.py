"""A paused process (SIGSTOP), which accepts connections and answers nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from testbed.chaos.fault_injector import FaultInjector


@contextmanager
def pause(injector: FaultInjector, name: str, spec: str | None) -> Iterator[None]:
    """Pause a role or layer process until the end of the block."""
    injector.inject("pause", name)
    try:
        yield
    finally:
        injector.inject("continue", name)
