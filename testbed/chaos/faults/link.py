"""A bad link of one hop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from testbed.chaos.fault_injector import FaultInjector

BAD_LINKS = ("stall", "reset", "3g", "satellite", "lan,loss=0.2")


@contextmanager
def link(injector: FaultInjector, name: str, spec: str | None) -> Iterator[None]:
    """Change the link of a hop to ``spec`` until the end of the block."""
    injector.inject("link", name, spec)
    try:
        yield
    finally:
        injector.inject("link", name)
