"""A hop whose connections are accepted and reset shortly after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from testbed.chaos.fault_injector import FaultInjector
from testbed.chaos.faults.link import link


@contextmanager
def reset_after_accept(injector: FaultInjector, name: str, spec: str | None) -> Iterator[None]:
    """Let the relay of a hop accept each connection and reset it within 3 ms, until the end."""
    with link(injector, name, "reset-after-accept"):
        yield
