"""A killed process (SIGKILL); the testbed restarts it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from testbed.chaos.fault_injector import FaultInjector


@contextmanager
def kill(injector: FaultInjector, name: str, spec: str | None) -> Iterator[None]:
    """Kill a role or layer process; for the mobile, wait at the end until it is ready again."""
    injector.inject("kill", name)
    yield
    if name == "mobile":
        injector.wait_ready(name)
