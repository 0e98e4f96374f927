"""The durable outbox: keeps a process's entries on disk until the ledger has stored them.

The outbox is an SQLite file in WAL mode without a sync for each commit. Recorded entries survive
the death of the process; a power cut may lose the last commits. The shipper's thread makes the
checkpoints (`Outbox.checkpoint`), so that no request waits for their syncs.
"""

from __future__ import annotations

import fcntl
import hmac
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from shared.domain import Delivery, Reason, Side, State
from shared.errors import DimeeError, NotReady
from shared.ledger.entry import LedgerEntry
from shared.process_bound import ProcessBound

log = logging.getLogger(__name__)

MAX_BUFFERED = 10_000
"""Entries kept in memory while the disk is full; about a kilobyte each."""
# a request waits for the deletion of at most this many rows
_ROWS_PER_TRANSACTION = 100
# written rows between two checkpoints: about SQLite's default of 1,000 pages
_CHECKPOINT_ROWS = 500
# 40 MB; a commit then makes a checkpoint itself, because the shipper has made none for long
_WAL_PAGES = 10_000
# version of a row that is only in memory
_IN_MEMORY = -1

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
_UPSERT = """
INSERT INTO outbox (attempt_id, side, terminal, version, body) VALUES (?, ?, ?, 1, ?)
ON CONFLICT (attempt_id, side) DO UPDATE SET
    terminal = excluded.terminal, version = version + 1, body = excluded.body, delivered = 0
WHERE outbox.terminal = 0
"""


class Outbox(ProcessBound):
    """Entries of one process that are not yet delivered to the ledger. Thread-safe."""

    def __init__(self, file: Path, lock: int, salt: bytes) -> None:
        self._file_lock = lock
        self._salt = salt
        self._write_lock = threading.Lock()
        self.recorded = threading.Event()
        """Set when an entry was recorded; the shipper waits for it."""
        self.dropped = 0
        """Number of entries that could neither be written nor kept in memory."""
        self._file = file
        self._rows_since_checkpoint = 0
        self._buffered: dict[tuple[str, str], str] = {}
        self._db = _connect(file)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        self._db.executescript(_SCHEMA)
        self._read_lock = threading.Lock()
        # a separate connection, so that reading a long backlog does not block writers
        self._reader = _connect(file)
        self._closed = False
        self.bind_to_process()

    @classmethod
    def claim(cls, directory: Path, writer: str) -> Outbox:
        """Open the first outbox in ``directory`` that no live process holds, or a new one.

        This process then also delivers the entries of earlier processes: their open attempts end
        as abandoned, and the rows of every other unused outbox move into this one. ``writer`` names
        the process in errors. Raises `DimeeError` if the directory cannot be used.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
            salt = _salt(directory)
            number = 0
            while (lock := _try_lock(directory / f"outbox-{number}.lock")) is None:
                number += 1
            outbox = cls(directory / f"outbox-{number}.sqlite", lock, salt)
            outbox._adopt_others(directory, number)
            outbox._abandon_open()
        except (OSError, sqlite3.Error) as error:
            raise DimeeError(
                f"state-dir: {directory} cannot hold the {writer}'s outbox ({error}); "
                "choose another with DIMEE_STATE_DIR"
            ) from None
        return outbox

    def record(self, *entries: LedgerEntry) -> None:
        """Write new entries or the ends of open ones in one transaction.

        A terminal state is never changed. Raises `NotReady` if the entries cannot be written,
        because no request may start and no answer be given without its entries.
        """
        self._check_usable()
        try:
            self._write([_row(entry) for entry in entries])
        except (sqlite3.Error, ValueError) as error:
            # only the database's message: a validation error would contain the entry
            reason = str(error) if isinstance(error, sqlite3.Error) else type(error).__name__
            log.error("%d entries could not be written to the outbox: %s", len(entries), reason)
            raise NotReady(
                f"the outbox in {self._file.parent} cannot be written ({reason}), and no request "
                "is answered without its ledger entries; free disk space or set DIMEE_STATE_DIR"
            ) from None
        finally:
            self.recorded.set()

    def record_or_buffer(self, *entries: LedgerEntry) -> None:
        """Record the ends of attempts without raising.

        Entries that cannot be written are kept in memory, at most `MAX_BUFFERED`, and delivered
        from there. Use it for attempts whose caller no longer waits for an answer.
        """
        for entry in entries:
            try:
                self.record(entry)
            except NotReady:
                key = (entry.attempt_id, entry.side.value)
                if len(self._buffered) >= MAX_BUFFERED or not _is_serialisable(entry):
                    self.dropped += 1
                else:
                    self._buffered.setdefault(key, entry.model_dump_json())

    def checkpoint(self) -> None:
        """Write the entries kept in memory and checkpoint the WAL; called by the shipper."""
        for (attempt_id, side), body in list(self._buffered.items()):
            try:
                self._write([(attempt_id, side, True, body)])
            except sqlite3.Error:
                break
            self._buffered.pop((attempt_id, side), None)
        if self._rows_since_checkpoint < _CHECKPOINT_ROWS:
            return
        with suppress(sqlite3.Error), self._read_lock:
            self._rows_since_checkpoint = 0
            self._reader.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def pending(self, limit: int) -> list[tuple[str, str, int, str]]:
        """Return at most ``limit`` undelivered rows: (attempt_id, side, version, JSON body)."""
        buffered = [(*key, _IN_MEMORY, body) for key, body in list(self._buffered.items())[:limit]]
        with self._read_lock:
            return (
                buffered
                + self._reader.execute(
                    "SELECT attempt_id, side, version, body FROM outbox "
                    "WHERE delivered < version AND NOT quarantined LIMIT ?",
                    (limit - len(buffered),),
                ).fetchall()
            )

    def mark_delivered(self, rows: list[tuple[str, str, int]]) -> None:
        """Delete delivered rows; keep those that are open or have changed since they were sent."""
        for attempt_id, side, version in rows:
            if version == _IN_MEMORY:
                self._buffered.pop((attempt_id, side), None)
        keys = [(version, attempt_id, side) for attempt_id, side, version in rows if version > 0]
        where = "WHERE attempt_id = ? AND side = ?"
        for start in range(0, len(keys), _ROWS_PER_TRANSACTION):
            batch = keys[start : start + _ROWS_PER_TRANSACTION]
            self._rows_since_checkpoint += len(batch)
            with self._write_lock, _transaction(self._db):
                self._db.executemany(f"UPDATE outbox SET delivered = ? {where}", batch)
                self._db.executemany(
                    f"DELETE FROM outbox {where} AND terminal AND delivered = version",
                    [key[1:] for key in batch],
                )

    def quarantine(self, attempt_id: str, side: str) -> None:
        """Exclude a row that the ledger rejects from further deliveries; the row stays on disk."""
        with self._write_lock:
            self._db.execute(
                "UPDATE outbox SET quarantined = 1 WHERE attempt_id = ? AND side = ?",
                (attempt_id, side),
            )

    def count_pending(self, limit: int = -1) -> int:
        """Return the number of undelivered rows, at most ``limit``; without it reads all rows."""
        buffered = len(self._buffered)
        with self._read_lock:
            row = self._reader.execute(
                "SELECT count(*) FROM (SELECT 1 FROM outbox "
                "WHERE delivered < version AND NOT quarantined LIMIT ?)",
                (limit,),
            ).fetchone()
        found = int(row[0]) + buffered
        return found if limit < 0 else min(limit, found)

    def hash_text(self, text: str, pair: str | None) -> str:
        """Return a salted hash (HMAC-SHA256, 128 bits in hex): equal only for equal texts."""
        content = text if pair is None else f"{text}\x1f{pair}"
        message = content.encode("utf-8", "surrogatepass")
        return hmac.digest(self._salt, message, "sha256").hex()[:32]

    def after_fork_in_child(self) -> None:
        """Close the inherited lock: a child that outlives this process must not keep it."""
        if not self._closed:
            os.close(self._file_lock)

    def _check_usable(self) -> None:
        if self._closed:
            raise NotReady("this process is stopping, and its outbox is closed; ask another one")
        if self.is_foreign:
            raise NotReady(
                f"the outbox belongs to process {self.owner_id}, from which this one was forked; "
                "start the service, or create the client, in each process after the fork"
            )

    def close(self) -> None:
        """Close the files and release the outbox to other processes; does nothing in a child."""
        if self._closed or self.is_foreign:
            return
        self.checkpoint()
        self._closed = True
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._db.close()
        os.close(self._file_lock)

    def _write(self, rows: list[tuple[str, str, bool, str]]) -> None:
        with self._write_lock:
            self._rows_since_checkpoint += len(rows)
            if len(rows) == 1:
                self._db.execute(_UPSERT, rows[0])
            else:
                with _transaction(self._db):
                    self._db.executemany(_UPSERT, rows)

    def _abandon_open(self) -> None:
        rows = self._db.execute(
            "SELECT attempt_id, side, body FROM outbox WHERE NOT terminal AND NOT quarantined"
        ).fetchall()
        entries = []
        for attempt_id, side, body in rows:
            try:
                entries.append(LedgerEntry.model_validate_json(body))
            except ValidationError:
                # another version wrote it; this process must start nevertheless
                log.error("the outbox's open entry %s cannot be read", attempt_id)
                self.quarantine(attempt_id, side)
        # the final attempt of each request is the first open one; audits are never final
        final_entries: dict[str, LedgerEntry] = {}
        for entry in sorted(entries, key=lambda entry: entry.ordinal, reverse=True):
            if entry.side is Side.CALLER and entry.reason is not Reason.AUDIT:
                final_entries[entry.request_id] = entry
        for entry in entries:
            changes: dict[str, object] = {"state": State.ABANDONED, "error_code": "process_died"}
            if entry.side is Side.CALLER:
                final = entry is final_entries.get(entry.request_id)
                changes |= {"delivery": Delivery.UNKNOWN, "final": final}
            self.record_or_buffer(entry.model_copy(update=changes))

    def _adopt_others(self, directory: Path, own_number: int) -> None:
        for file in sorted(directory.glob("outbox-*.sqlite")):
            number = file.stem.removeprefix("outbox-")
            if number == str(own_number):
                continue
            lock = _try_lock(file.with_suffix(".lock"))
            if lock is None:
                continue
            try:
                self._adopt(file)
            except sqlite3.Error as error:
                # the file is corrupt, or its process died before it created the table
                log.error("the entries of %s cannot be adopted: %s", file, error)
            finally:
                os.close(lock)

    def _adopt(self, file: Path) -> None:
        self._db.execute("ATTACH DATABASE ? AS other", (str(file),))
        try:
            with _transaction(self._db):
                self._db.execute("INSERT OR IGNORE INTO outbox SELECT * FROM other.outbox")
                self._db.execute("DELETE FROM other.outbox")
        finally:
            self._db.execute("DETACH DATABASE other")


def _connect(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(file, check_same_thread=False, isolation_level=None)


def _row(entry: LedgerEntry) -> tuple[str, str, bool, str]:
    return entry.attempt_id, entry.side, entry.is_terminal, entry.model_dump_json()


def _is_serialisable(entry: LedgerEntry) -> bool:
    try:
        entry.model_dump_json()
    except ValueError:
        return False
    return True


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


def _try_lock(file: Path) -> int | None:
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _salt(directory: Path) -> bytes:
    """Return the directory's random salt. It is created once, atomically by a hard link."""
    file = directory / "salt"
    if not file.exists():
        temporary = directory / f"salt.{os.getpid()}.{threading.get_ident()}"
        temporary.write_bytes(os.urandom(32))
        temporary.chmod(0o600)
        with suppress(FileExistsError):
            os.link(temporary, file)
        temporary.unlink()
    return file.read_bytes()
