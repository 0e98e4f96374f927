"""A small JSON file that several processes of one machine share."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shared.files import ChangeDetector

log = logging.getLogger(__name__)

LARGEST_BYTES = 4 * 1024 * 1024
LOCK_S = 0.5
"""Longest wait in seconds for the lock, because requests wait meanwhile."""
RETRY_S = 0.01


class StateFile:
    """A JSON file that is written atomically under a lock.

    `changed` reports writes by other processes.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._changes = ChangeDetector(file)
        self._changes.forget()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the file's lock.

        Raises `OSError` if the lock file cannot be created, or if another process, which may be
        paused, holds the lock for `LOCK_S`.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.file.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            _lock(lock)
            yield
        finally:
            os.close(lock)

    def changed(self) -> bool:
        """Return whether the file has changed since this object last read or wrote it."""
        return self._changes.differs()

    def read(self) -> Any:
        """Return the file's content; None if there is no file.

        A damaged file is renamed (`set_aside`), and the result is None.
        """
        self._changes.mark()
        if not self._changes.exists:
            return None
        try:
            with self.file.open("rb") as content:
                raw = content.read(LARGEST_BYTES + 1)
            return json.loads(raw) if len(raw) <= LARGEST_BYTES else self.set_aside("is too large")
        except (OSError, ValueError) as error:
            return self.set_aside(f"cannot be read ({type(error).__name__})")

    def set_aside(self, problem: str) -> None:
        """Rename a damaged file, which keeps it for examination, and log a warning."""
        aside = self.file.with_suffix(".damaged")
        log.warning(
            "%s %s; it is renamed to %s, and the counts start again", self.file, problem, aside.name
        )
        with suppress(OSError):
            self.file.replace(aside)
        self._changes.mark()

    def write(self, content: Any) -> None:
        """Replace the file's content atomically."""
        temporary = self.file.with_suffix(f".{os.getpid()}.part")
        temporary.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(self.file)
        self._changes.mark()

    def remove(self) -> bool:
        """Remove the file; return whether there was one."""
        with self.locked():
            try:
                self.file.unlink()
            except FileNotFoundError:
                return False
        return True


def _lock(descriptor: int) -> None:
    until = time.monotonic() + LOCK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError("another process holds its lock") from None
            time.sleep(RETRY_S)
        else:
            return
