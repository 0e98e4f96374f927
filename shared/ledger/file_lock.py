"""Exclusive lock of a file, which the kernel releases when its process ends, also by SIGKILL."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

_HELD = (errno.EWOULDBLOCK, errno.EACCES)


def try_lock(file: Path) -> int | None:
    """Return a file descriptor that holds the lock of ``file``, or None if another one holds it.

    Closing the descriptor releases the lock. Raises `OSError` if the file cannot be created, or if
    its file system has no locks (some network and FUSE file systems).
    """
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _HELD:
            return None
        raise OSError(error.errno, "the file system has no file locks") from error
    return descriptor
