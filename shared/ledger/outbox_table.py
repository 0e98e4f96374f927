"""The outbox's SQLite file: rows that wait for delivery.

The file is in WAL mode without a sync for each commit. Every method raises `sqlite3.Error` if the
file cannot be read or written.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from shared.ledger.sqlite_file import SqliteFile, keep_log_of_empty_file

BUSY_TIMEOUT_S = 0.02
"""Time to wait for another program that has locked the file. It is short, because an event loop may
wait; no process of dimee shares an outbox."""
FILE_CHECK_INTERVAL_S = 0.01
"""Interval at which recording checks that the file is still there. The entries of that time are as
safe as those just before: they are delivered from the open file while this process lives."""
# a request waits for the deletion of at most this many rows
_ROWS_PER_TRANSACTION = 100
# written rows between two checkpoints: about SQLite's default of 1,000 pages
_CHECKPOINT_ROWS = 500
# A checkpoint may grow the file by as much as was written since the last one, and the reserve must
# cover that; a commit makes the checkpoint itself if the shipper has made none for so long.
_MAX_UNCHECKPOINTED_BYTES = 2 * 1024 * 1024
WAL_BYTES = 4 * 1024 * 1024
"""Most space that an empty write-ahead log keeps."""
# 40 MB; SQLite's own limit of the WAL, beyond the limit above
_WAL_PAGES = 10_000
# free pages that make it worth to shrink the file, and the most that are given back at once
SHRINK_FREE_PAGES = 1_000
# most used pages of an earlier version's file, which is shrunk by a copy
_SHRINK_USED_PAGES = 250

RowKey = tuple[str, str, int]
"""Attempt, side and version of a row."""
Row = tuple[str, str, int, str]
"""Attempt, side, version and JSON body of a row."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    attempt_id TEXT NOT NULL,
    side TEXT NOT NULL,
    terminal INTEGER NOT NULL,
    version INTEGER NOT NULL,
    quarantined INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0,
    body TEXT NOT NULL,
    PRIMARY KEY (attempt_id, side)
);
"""
# in memory: rows whose delivery could not be written to the file
_DONE = """
CREATE TEMP TABLE done (
    attempt_id TEXT NOT NULL,
    side TEXT NOT NULL,
    version INTEGER NOT NULL,
    rejected INTEGER NOT NULL,
    PRIMARY KEY (attempt_id, side, version)
) WITHOUT ROWID
"""
_UPSERT = """
INSERT INTO outbox (attempt_id, side, terminal, version, body) VALUES (?, ?, ?, 1, ?)
ON CONFLICT (attempt_id, side) DO UPDATE SET
    terminal = excluded.terminal, version = version + 1, body = excluded.body, delivered = 0
WHERE outbox.terminal = 0
"""
_KEY = "WHERE attempt_id = ? AND side = ?"
_WAITING = """
FROM outbox WHERE delivered < version AND NOT quarantined AND NOT EXISTS (
    SELECT 1 FROM done WHERE done.attempt_id = outbox.attempt_id AND done.side = outbox.side
    AND done.version = outbox.version)
LIMIT ?
"""


class OutboxTable:
    """Rows of one outbox file. Thread-safe."""

    def __init__(self, file: Path) -> None:
        self._write_lock = threading.Lock()
        # a separate connection, so that reading a long backlog does not block writers
        self._read_lock = threading.Lock()
        self._rows_since_checkpoint = 0
        self._bytes_since_checkpoint = 0
        self._done_rows = 0
        keep_log_of_empty_file(file)
        self._db = _connect(file)
        self._reader = _connect(file)
        try:
            # has an effect on a new file only
            self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
            self._db.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            self._db.execute("PRAGMA temp_store = MEMORY")
            self._db.executescript(_SCHEMA)
            self._reader.execute("PRAGMA temp_store = MEMORY")
            self._reader.execute(_DONE)
            self._opened = SqliteFile(file)
            self._checked_at = 0.0
        except sqlite3.Error:
            self.close()
            raise

    def upsert(self, rows: Sequence[tuple[str, str, bool, str]]) -> None:
        """Write rows (attempt, side, terminal, body) in one transaction."""
        with self._write_lock:
            self._rows_since_checkpoint += len(rows)
            self._bytes_since_checkpoint += sum(len(row[3]) for row in rows)
            if len(rows) == 1:
                self._db.execute(_UPSERT, rows[0])
            else:
                with _transaction(self._db):
                    self._db.executemany(_UPSERT, rows)

    def check_file(self) -> None:
        """Raise `sqlite3.Error` if the file was removed or replaced since it was opened."""
        self._opened.check()
        self._checked_at = time.monotonic()

    def check_file_if_due(self) -> None:
        """Do `check_file` if that was last done `FILE_CHECK_INTERVAL_S` ago or earlier."""
        if time.monotonic() - self._checked_at >= FILE_CHECK_INTERVAL_S:
            self.check_file()

    @property
    def checkpoint_overdue(self) -> bool:
        """True if more was written since the last checkpoint than the reserve may cover."""
        return self._bytes_since_checkpoint > _MAX_UNCHECKPOINTED_BYTES

    def probe(self) -> None:
        """Write one page, to learn whether the file can be written."""
        with self._write_lock:
            self._write_page()

    def pending(self, limit: int) -> list[Row]:
        """Return at most ``limit`` rows that are not delivered."""
        with self._read_lock:
            return self._reader.execute(
                f"SELECT attempt_id, side, version, body {_WAITING}", (limit,)
            ).fetchall()

    def count_pending(self, limit: int = -1) -> int:
        """Return the number of rows that are not delivered, at most ``limit``."""
        with self._read_lock:
            row = self._reader.execute(
                f"SELECT count(*) FROM (SELECT 1 {_WAITING})", (limit,)
            ).fetchone()
        return int(row[0])

    def count_quarantined(self) -> int:
        """Return the number of rows that are excluded from deliveries."""
        with self._read_lock:
            row = self._reader.execute("SELECT count(*) FROM outbox WHERE quarantined").fetchone()
        return int(row[0])

    def open_rows(self) -> list[Row]:
        """Return the rows that are not terminal."""
        with self._read_lock:
            return self._reader.execute(
                "SELECT attempt_id, side, version, body FROM outbox "
                "WHERE NOT terminal AND NOT quarantined"
            ).fetchall()

    def attempt_ids(self, limit: int) -> list[str]:
        """Return the attempts of at most the last ``limit`` rows, oldest first."""
        with self._read_lock:
            rows = self._reader.execute(
                "SELECT attempt_id FROM outbox ORDER BY rowid DESC LIMIT ?", (limit,)
            ).fetchall()
        return [str(row[0]) for row in reversed(rows)]

    def mark_delivered(self, keys: Sequence[RowKey]) -> None:
        """Delete delivered rows; keep those that are open or have changed since they were sent."""
        for start in range(0, len(keys), _ROWS_PER_TRANSACTION):
            batch = [
                (version, attempt_id, side)
                for attempt_id, side, version in keys[start : start + _ROWS_PER_TRANSACTION]
            ]
            with self._write_lock, _transaction(self._db):
                self._rows_since_checkpoint += len(batch)
                self._db.executemany(f"UPDATE outbox SET delivered = ? {_KEY}", batch)
                self._db.executemany(
                    f"DELETE FROM outbox {_KEY} AND terminal AND delivered = version",
                    [key[1:] for key in batch],
                )

    def quarantine(self, attempt_id: str, side: str) -> None:
        """Exclude a row from further deliveries."""
        with self._write_lock:
            self._db.execute(
                f"UPDATE outbox SET quarantined = 1 {_KEY}",
                (attempt_id, side),
            )

    def remember_done(self, keys: Sequence[RowKey], rejected: bool) -> None:
        """Keep in memory that rows are delivered or rejected, while the file cannot be written."""
        with self._read_lock:
            self._reader.executemany(
                "INSERT OR IGNORE INTO done VALUES (?, ?, ?, ?)",
                [(*key, rejected) for key in keys],
            )
            self._done_rows = self._count_done()

    def write_done(self) -> None:
        """Write to the file what `remember_done` kept in memory."""
        while self._done_rows:
            with self._read_lock:
                rows = self._reader.execute(
                    "SELECT attempt_id, side, version, rejected FROM done LIMIT ?",
                    (_ROWS_PER_TRANSACTION,),
                ).fetchall()
            self.mark_delivered([row[:3] for row in rows if not row[3]])
            for attempt_id, side, _, rejected in rows:
                if rejected:
                    self.quarantine(attempt_id, side)
            with self._read_lock:
                self._reader.executemany(
                    f"DELETE FROM done {_KEY} AND version = ?", [row[:3] for row in rows]
                )
                self._done_rows = self._count_done()

    def checkpoint(self, due_rows: int = _CHECKPOINT_ROWS) -> None:
        """Move the WAL's pages into the file if ``due_rows`` were written since the last time."""
        if self._rows_since_checkpoint < due_rows:
            return
        with self._read_lock:
            self._reader.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._rows_since_checkpoint = self._bytes_since_checkpoint = 0

    def empty_wal(self, keep_space: bool = True) -> None:
        """Move the WAL's pages into the file.

        The WAL keeps at most `WAL_BYTES` of its space, in which rows can be deleted when the disk
        is full; without ``keep_space`` it gives all of it back to the file system.
        """
        mode = "RESTART" if keep_space else "TRUNCATE"
        with self._write_lock:
            self._db.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
            if keep_space:
                self._write_page()  # SQLite shortens the WAL at the next commit only
        self._rows_since_checkpoint = self._bytes_since_checkpoint = 0

    def used_bytes(self) -> int:
        """Return the size of the rows, without free pages and the WAL."""
        used_pages, _, page_bytes = self._pages()
        return used_pages * page_bytes

    def shrink(self, at_least_pages: int) -> None:
        """Give free pages back to the file system if there are ``at_least_pages`` of them."""
        used_pages, free_pages, _ = self._pages()
        if free_pages < at_least_pages:
            return
        with self._write_lock:
            if self._db.execute("PRAGMA auto_vacuum").fetchone() == (2,):
                # not by execute, which would stop after the first page
                self._db.executescript(f"PRAGMA incremental_vacuum({SHRINK_FREE_PAGES})")
            elif used_pages <= _SHRINK_USED_PAGES:
                # a file of an earlier version; this also changes its mode
                self._db.execute("VACUUM")
        self.empty_wal()

    def adopt(self, file: Path) -> None:
        """Move the rows of another outbox's file into this one.

        Each row is written here before it is deleted there. If the process dies in between, it is
        delivered twice, and the ledger ignores the second time.
        """
        batch = f"SELECT rowid FROM other.outbox ORDER BY rowid LIMIT {_ROWS_PER_TRANSACTION}"
        with self._write_lock:
            self._db.execute("ATTACH DATABASE ? AS other", (str(file),))
            try:
                while self._db.execute(batch).fetchone() is not None:
                    self._db.execute(
                        "INSERT OR IGNORE INTO main.outbox "
                        f"SELECT * FROM other.outbox WHERE rowid IN ({batch})"
                    )
                    self._db.execute(f"DELETE FROM other.outbox WHERE rowid IN ({batch})")
            finally:
                self._db.execute("DETACH DATABASE other")

    def close(self) -> None:
        """Close the file."""
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._db.close()

    def _write_page(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        self._db.execute(f"PRAGMA user_version = {(version + 1) % 1_000_000}")

    def _pages(self) -> tuple[int, int, int]:
        """Return the used and the free pages, and the bytes of a page."""
        with self._read_lock:
            pages, free_pages, page_bytes = (
                int(self._reader.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
        return pages - free_pages, free_pages, page_bytes

    def _count_done(self) -> int:
        return int(self._reader.execute("SELECT count(*) FROM done").fetchone()[0])


def _connect(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        file, timeout=BUSY_TIMEOUT_S, check_same_thread=False, isolation_level=None
    )


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite has rolled back by itself if the disk is full
            db.execute("ROLLBACK")
        raise
