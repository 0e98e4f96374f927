"""Limits of the size of the files that a process writes."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil

from testbed.chaos.faults.fault_kind import FaultNotPossible


@dataclass
class _Limited:
    """A process with limits: those that are held now, and the one that it had before."""

    before: tuple[int, int]
    held: list[int] = field(default_factory=list)


class FileSizeLimits:
    """Limits that several faults hold on the same process; the smallest one counts. Thread-safe.

    When the last one ends, the process has the limit that it had before the first one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limited: dict[psutil.Process, _Limited] = {}

    @contextmanager
    def hold(self, process: psutil.Process, limit_bytes: int) -> Iterator[None]:
        """Let no file of the process grow beyond ``limit_bytes`` until the end of the block.

        Raises `FaultNotPossible` where limits cannot be set.
        """
        try:
            with self._lock:
                limited = self._limited.get(process)
                if limited is None:
                    limited = _Limited(process.rlimit(resource.RLIMIT_FSIZE))
                _set(process, limited, [*limited.held, limit_bytes])
                self._limited[process] = limited
        except (AttributeError, psutil.Error, OSError) as error:
            raise FaultNotPossible(f"the size of files cannot be limited here ({error})") from None
        try:
            yield
        finally:
            with self._lock:
                left = limited.held.copy()
                left.remove(limit_bytes)
                if not left:
                    del self._limited[process]
                with suppress(psutil.NoSuchProcess):  # ended by another fault
                    _set(process, limited, left)


def _set(process: psutil.Process, limited: _Limited, held: list[int]) -> None:
    limited.held = held
    soft = min(held, default=limited.before[0])
    process.rlimit(resource.RLIMIT_FSIZE, (soft, limited.before[1]))
