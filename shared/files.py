"""Reads regular files, detects that a file has changed, and prepares files to be written."""

from __future__ import annotations

import errno
import io
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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


def other_owner_remedy() -> str:
    """Return what to do about a state folder that this process's user may not use."""
    return (
        f"give the folder to user {os.getuid()} (chown), or set DIMEE_STATE_DIR to a folder of "
        "that user"
    )


@contextmanager
def open_regular(file: Path) -> Iterator[io.BufferedReader]:
    """Open a regular file for reading.

    Raises `OSError` for anything else, such as a folder, a pipe or a device, and never waits, as
    opening a pipe without a writer would.
    """
    _check_regular(os.stat(file))  # opening a device may have effects
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as content:
        _check_regular(os.fstat(descriptor))
        yield content


def open_stream(file: Path) -> io.BufferedReader:
    """Open a regular file or a pipe for reading; a pipe without a writer is empty.

    Raises `OSError` for anything else, and never waits for a writer.
    """
    if not stat.S_ISFIFO(os.stat(file).st_mode):
        check_regular(file)
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(descriptor, True)
    return open(descriptor, "rb")


def check_regular(file: Path) -> None:
    """Raise `OSError` if ``file`` is not a regular file, for readers that open it themselves."""
    _check_regular(os.stat(file))


def refuse_special_files(folder: Path, option: str) -> None:
    """Raise `InvalidInput` for a pipe, socket or device in ``folder`` or below it.

    For readers of whole folders, which would wait for the writer of a pipe. What is missing is
    left to the reader.
    """
    for file in sorted(folder.rglob("*")):
        if file.exists() and not file.is_dir():
            try:
                check_regular(file)
            except OSError as error:
                raise InvalidInput(
                    f"{option}: {file} cannot be read ({error.strerror}); remove it"
                ) from None


def read_limited(file: Path, largest_bytes: int) -> bytes:
    """Return the content of a regular file; raise `OSError` if it is larger (``EFBIG``)."""
    with open_regular(file) as content:
        raw = content.read(largest_bytes + 1)
    if len(raw) > largest_bytes:
        raise OSError(errno.EFBIG, f"it has more than {largest_bytes:,} bytes")
    return raw


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a file")


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
            status = self.file.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


CREATE_S = 2.0
"""Time that a process gets to write a file which it has created; then it counts as killed."""


def create_once(file: Path, content: bytes) -> bytes:
    """Create ``file`` with ``content`` unless it exists; return what it then contains.

    Of several processes, one creates the file, and all return the same content, whose length must
    be theirs. No hard link is needed: some file systems (exFAT, Android's storage) have none. A
    file that a killed process left incomplete is replaced.
    """
    try:
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        until = time.monotonic() + CREATE_S
        while len(found := file.read_bytes()) != len(content):
            if time.monotonic() > until:
                part = file.with_name(f"{file.name}.{os.getpid()}.{threading.get_ident()}")
                part.touch(0o600)
                part.write_bytes(content)
                part.replace(file)
                return file.read_bytes()
            time.sleep(0.01)
        return found
    try:
        with open(descriptor, "wb") as created:
            created.write(content)
    except OSError:  # a full disk
        file.unlink(missing_ok=True)
        raise
    return content
