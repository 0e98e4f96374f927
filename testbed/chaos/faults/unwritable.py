"""State that cannot be written: a full disk, and a file system that became read-only.

Both limit the size of the files that a process writes, which needs no privilege. A write beyond the
limit fails as on a full disk or over a quota. With a limit of 0 every write fails and reads
succeed, as after a remount that the kernel makes on a disk error. An ordinary remount is not
possible while a process has files open for writing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from testbed.chaos.fault_injector import FaultInjector
from testbed.chaos.faults.fault_kind import FaultNotPossible
from testbed.chaos.faults.file_size import FileSizeLimits

ROOM_BYTES = 64 * 1024
"""Bytes that the largest file of the process may still grow on a full disk."""
# of all testbeds that this process injects faults into
_LIMITS = FileSizeLimits()


@contextmanager
def disk_full(injector: FaultInjector, name: str, spec: str | None) -> Iterator[None]:
    """Let the files of a role grow by `ROOM_BYTES` only, until the end of the block."""
    process = _process(injector, name)
    with _LIMITS.hold(process, _largest_file_bytes(process) + ROOM_BYTES):
        yield
    injector.wait_ready(name)


@contextmanager
def read_only(injector: FaultInjector, name: str, spec: str | None) -> Iterator[None]:
    """Let every write of a role fail, until the end of the block."""
    with _LIMITS.hold(_process(injector, name), 0):
        yield
    injector.wait_ready(name)


def _process(injector: FaultInjector, name: str) -> psutil.Process:
    try:
        return psutil.Process(injector.pid(name))
    except psutil.NoSuchProcess:
        raise FaultNotPossible(f"the {name} has just ended by another fault") from None


def _largest_file_bytes(process: psutil.Process) -> int:
    largest = 0
    with suppress(psutil.Error, OSError):  # a file or the process may have ended
        for file in process.open_files():
            largest = max(largest, Path(file.path).stat().st_size)
    return largest
