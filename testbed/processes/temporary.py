"""Temporary folders of commands, which the next command removes where one was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "dimee-"
LOCK = ".in-use"
"""Lock file in each folder. The system releases the lock when the command ends in any way."""
MIN_AGE_S = 60.0
"""Younger folders are left alone: their command may be about to lock them."""
REMOVE_S = 10.0
"""Time for which the removal is tried, while a process that ends may still write to the folder."""


@contextmanager
def temporary_folder(command: str) -> Iterator[Path]:
    """Create a temporary folder ``dimee-COMMAND-…``, and remove it at the end of the block.

    Folders that killed commands of this user have left are removed first.
    """
    remove_abandoned(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{command}-"))
    with (folder / LOCK).open("w") as lock:
        with suppress(OSError):  # without locks the next command leaves the folder alone
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield folder
        finally:
            _remove(folder)


def remove_abandoned(where: Path, now: float | None = None) -> list[Path]:
    """Remove the temporary folders whose command has ended, and return them.

    ``now`` is the time in seconds since 1970; the default is the clock.
    """
    now = time.time() if now is None else now
    removed = []
    for lock in where.glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError):  # of another user, or removed in the meantime
            if lock.stat().st_uid != os.getuid() or now - lock.stat().st_mtime < MIN_AGE_S:
                continue
            with lock.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent)
                removed.append(lock.parent)
    return removed


def _remove(folder: Path) -> None:
    until = time.monotonic() + REMOVE_S
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() > until:
            return
        if folder.exists():
            time.sleep(0.05)
