"""Description of one kind of fault, and the error of a fault that this machine does not allow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from shared.errors import DimeeError
from testbed.chaos.fault_injector import FaultInjector

Hold = Callable[[FaultInjector, str, str | None], AbstractContextManager[None]]
"""Context manager of a fault: it gets the injector, the name of what is faulty, and a spec."""


@dataclass(frozen=True, slots=True)
class FaultKind:
    """A kind of fault, and what a schedule may draw for it."""

    hold: Hold
    """The fault is there while this context is open; closing it restores everything."""
    names: tuple[str, ...]
    """Roles, layer processes or hops that can have this fault."""
    specs: tuple[str | None, ...] = (None,)
    """Variants of the fault."""
    stops_the_process: bool = False
    """True if a process with this fault answers nothing: requests to the mobile are then exempt."""
    over_at_once: bool = False
    """True if the context is closed at once instead of after `TimedFault.for_s`."""
    weight: int = 1
    """Relative frequency with which a schedule draws this kind."""


class FaultNotPossible(DimeeError):
    """This machine does not allow a fault, for example without the permission to mount.

    A fault raises it when its context is entered; the schedule says so and goes on without it.
    """
