"""Detects that a file has changed since it was last read."""

from __future__ import annotations

from pathlib import Path

Signature = tuple[int, int, int]


class ChangeDetector:
    """Compares a file with its state at the last call of `changed` or `mark`.

    It compares modification time, size and inode; a missing file also counts as a state. Example::

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
        """True if the file existed at the last check."""
        return self._signature is not None

    def mark(self) -> None:
        """Remember the file's present state."""
        self._signature = self._read_signature()

    def forget(self) -> None:
        """Remember the file as missing, so that an existing file counts as changed."""
        self._signature = None

    def differs(self) -> bool:
        """Return whether the file differs from the remembered state."""
        return self._read_signature() != self._signature

    def changed(self) -> bool:
        """Return whether the file differs from the remembered state, and remember its new state.

        Call it before you read the file, so that a change while you read counts as another change.
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
