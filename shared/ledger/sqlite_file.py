"""File of a SQLite database, which another program may remove, replace or empty."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

_PAGE_BYTES = 4096


class RemovedFileError(sqlite3.OperationalError):
    """The database was removed or replaced: SQLite goes on writing to a file that nobody finds."""


class SqliteFile:
    """Database file and its write-ahead log, as this process has opened them."""

    def __init__(self, file: Path) -> None:
        self._files = (str(file), f"{file}-wal")
        self._opened = self._identities()

    def check(self) -> None:
        """Raise `RemovedFileError` unless the files are those that were opened; 2 µs."""
        if self._identities() != self._opened:
            raise RemovedFileError("its file was removed or replaced")

    def _identities(self) -> list[tuple[int, int] | None]:
        return [_identity(file) for file in self._files]


def _identity(file: str) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def keep_log_of_empty_file(file: Path) -> None:
    """Let SQLite read the write-ahead log of a database that was emptied.

    SQLite deletes the log of a file of zero bytes. With one empty page it takes the pages from the
    log, or reports that the file is not a database.
    """
    log = Path(f"{file}-wal")
    if file.is_file() and not file.stat().st_size and log.is_file() and log.stat().st_size:
        os.truncate(file, _PAGE_BYTES)


def is_damaged(error: BaseException | None) -> bool:
    """Return whether SQLite found that the file is damaged or no database."""
    name = getattr(error, "sqlite_errorname", None) or ""
    return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
