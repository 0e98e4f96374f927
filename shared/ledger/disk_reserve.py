"""Disk space that is set aside, so that entries can be deleted on a full disk."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

RESERVE_BYTES = 4 * 1024 * 1024
"""Size of the reserve. It covers the growth of the database by one checkpoint, and the write-ahead
log of the deletions after it."""
HEADROOM_BYTES = 1024 * 1024
"""Free space beside the reserve that recording needs."""
BACKLOG_HEADROOM_BYTES = HEADROOM_BYTES + RESERVE_BYTES
"""Free space beside the reserve at which a full outbox records again before it is delivered. Less
is left to the ledger, which may be on the same disk."""


class DiskReserve:
    """File of `RESERVE_BYTES` that exists while there is room for it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def held(self) -> bool:
        """True if the file exists in its full size."""
        try:
            return self._file.stat().st_size == RESERVE_BYTES
        except OSError:
            return False

    def take(self, headroom_bytes: int = HEADROOM_BYTES) -> bool:
        """Set the space aside; return False without room for it and ``headroom_bytes`` more."""
        held = self.held
        needed_bytes = headroom_bytes + (0 if held else RESERVE_BYTES)
        try:
            if _free_bytes(self._file.parent) < needed_bytes:
                return False
            if held:
                return True
            descriptor = os.open(self._file, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                _allocate(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            self.release()
            return False
        return True

    def release(self) -> None:
        """Give the space back to the file system."""
        with suppress(OSError):
            self._file.unlink()


def _allocate(descriptor: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
        return
    for _ in range(RESERVE_BYTES // 4096):
        os.write(descriptor, b"\0" * 4096)


def _free_bytes(folder: Path) -> int:
    free = os.statvfs(folder)
    return free.f_bavail * free.f_frsize


def why_unwritable(folder: Path) -> str | None:
    """Return in words why the file system of ``folder`` takes no writes; None if it may."""
    try:
        state = os.statvfs(folder)
    except OSError:
        return "its folder cannot be reached"
    if state.f_flag & os.ST_RDONLY:
        return "the file system is read-only"
    if state.f_bavail * state.f_frsize < HEADROOM_BYTES:
        return "the disk is full"
    return None
