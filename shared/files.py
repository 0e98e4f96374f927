"""Noticing that a file has changed since it was last read."""

from __future__ import annotations

from pathlib import Path

Signature = tuple[int, int, int]


class ChangeDetector:
    """Tells whether a file differs from when `changed` or `mark` was last called.

    It compares modification time, size and inode. A missing file is a state of its own. Example::

        detector = ChangeDetector(path)
        content = path.read_text()
        ...
        if detector.changed():
            content = path.read_text()
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._signature: Signature | None = None
        self.mark()

    @property
    def exists(self) -> bool:
        """Whether the file existed when it was last looked at."""
        return self._signature is not None

    def mark(self) -> None:
        """Take the file's present state as the known one."""
        self._signature = self._read_signature()

    def forget(self) -> None:
        """Take the file as missing, so that an existing one counts as changed."""
        self._signature = None

    def differs(self) -> bool:
        """Return whether the file differs from the known state."""
        return self._read_signature() != self._signature

    def changed(self) -> bool:
        """Return whether the file differs from the known state, and make its state the known one.

        Call it before reading: a change while the file is read then counts as another one.
        """
        previous = self._signature
        self.mark()
        return self._signature != previous

    def _read_signature(self) -> Signature | None:
        try:
            stat = self.file.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
