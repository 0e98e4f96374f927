"""Detects that a file has changed since it was last read; prepares files that will be written."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from shared.errors import InvalidInput

Signature = tuple[int, int, int]


def prepare_output(file: Path, option: str) -> None:
    """Make the folder of a file that is written later, so that no work is lost.

    Raises `InvalidInput`, which names the ``option``, if the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise InvalidInput(
            f"{option}: {file} cannot be written ({error.strerror}); give another file",
            field=option,
        ) from None


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
