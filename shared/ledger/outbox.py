"""The durable outbox: entries on disk until the ledger has them. Standard library only.

SQLite in WAL mode without a sync per commit: what was recorded survives a killed process (the
pages are the kernel's by then); the last commits before a power cut may be lost.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from shared.errors import DimeeError
from shared.ledger.entry import Delivery, LedgerEntry, Reason, Side, State

log = logging.getLogger(__name__)

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
) WITHOUT ROWID;
"""
_UPSERT = """
INSERT INTO outbox (attempt_id, side, terminal, version, body) VALUES (?, ?, ?, 1, ?)
ON CONFLICT (attempt_id, side) DO UPDATE SET
    terminal = excluded.terminal, version = version + 1, body = excluded.body, delivered = 0
WHERE outbox.terminal = 0
"""


class Outbox:
    """One process's entries that the ledger does not have yet; thread-safe."""

    def __init__(self, file: Path, lock: int, salt: bytes) -> None:
        self._lock_file = lock
        self._salt = salt
        self._guard = threading.Lock()
        self.recorded = threading.Event()
        """Set whenever there is something new to deliver."""
        self.dropped = 0
        """Entries that could not be written (a full disk): they never fail an answer."""
        self._db = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)

    @classmethod
    def claim(cls, directory: Path, writer: str) -> Outbox:
        """Take the first outbox of ``directory`` that no live process holds, or a new one.

        What earlier processes left there is delivered by this one: their open attempts are ended
        as abandoned, and the rows of every other unheld outbox are taken over.
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
        """Write entries, or the ends of open ones, together; a terminal state is never changed.

        It never raises: an answer is worth more than its record. What could not be written is
        counted in `dropped` and logged without its content.
        """
        try:
            rows = [
                (entry.attempt_id, entry.side, entry.is_terminal, entry.model_dump_json())
                for entry in entries
            ]
            with self._guard:
                if len(rows) == 1:
                    self._db.execute(_UPSERT, rows[0])
                else:
                    with _transaction(self._db):
                        self._db.executemany(_UPSERT, rows)
        except (sqlite3.Error, ValueError) as error:
            self.dropped += len(entries)
            why = error if isinstance(error, sqlite3.Error) else type(error).__name__
            log.error("%d entries could not be written to the outbox: %s", len(entries), why)
        self.recorded.set()

    def pending(self, limit: int) -> list[tuple[str, str, int, str]]:
        """Undelivered rows: (attempt_id, side, version, JSON body)."""
        with self._guard:
            return self._db.execute(
                "SELECT attempt_id, side, version, body FROM outbox "
                "WHERE delivered < version AND NOT quarantined LIMIT ?",
                (limit,),
            ).fetchall()

    def mark_delivered(self, rows: list[tuple[str, str, int]]) -> None:
        """Forget what the ledger has; a row that changed meanwhile or is still open stays."""
        keys = [(version, attempt_id, side) for attempt_id, side, version in rows]
        where = "WHERE attempt_id = ? AND side = ?"
        with self._guard, _transaction(self._db):
            self._db.executemany(f"UPDATE outbox SET delivered = ? {where}", keys)
            self._db.executemany(
                f"DELETE FROM outbox {where} AND terminal AND delivered = version",
                [key[1:] for key in keys],
            )

    def quarantine(self, attempt_id: str, side: str) -> None:
        """Keep a row that the ledger refuses, and deliver the others."""
        with self._guard:
            self._db.execute(
                "UPDATE outbox SET quarantined = 1 WHERE attempt_id = ? AND side = ?",
                (attempt_id, side),
            )

    def count_pending(self) -> int:
        """How many rows the ledger does not have in their present state."""
        with self._guard:
            row = self._db.execute(
                "SELECT count(*) FROM outbox WHERE delivered < version AND NOT quarantined"
            ).fetchone()
        return int(row[0])

    def hash_text(self, text: str, pair: str | None) -> str:
        """A salted hash (HMAC-SHA256, 128 bits in hex): tells equal texts, reveals none."""
        content = text if pair is None else f"{text}\x1f{pair}"
        message = content.encode("utf-8", "surrogatepass")
        return hmac.new(self._salt, message, hashlib.sha256).hexdigest()[:32]

    def close(self) -> None:
        """Close the file and let another process have it."""
        with self._guard:
            self._db.close()
        os.close(self._lock_file)

    def _abandon_open(self) -> None:
        rows = self._db.execute(
            "SELECT attempt_id, side, body FROM outbox WHERE NOT terminal AND NOT quarantined"
        ).fetchall()
        for attempt_id, side, body in rows:
            try:
                entry = LedgerEntry.model_validate_json(body)
            except ValidationError:  # another version's; it must not keep this one from starting
                log.error("the outbox's open entry %s cannot be read", attempt_id)
                self.quarantine(attempt_id, side)
                continue
            ended: dict[str, object] = {"state": State.ABANDONED, "error_code": "process_died"}
            if entry.side is Side.CALLER:
                final = entry.reason is not Reason.AUDIT  # an audit's request has ended before it
                ended |= {"delivery": Delivery.UNKNOWN, "final": final}
            self.record(entry.model_copy(update=ended))

    def _adopt_others(self, directory: Path, mine: int) -> None:
        for file in sorted(directory.glob("outbox-*.sqlite")):
            number = file.stem.removeprefix("outbox-")
            if number == str(mine):
                continue
            lock = _try_lock(file.with_suffix(".lock"))
            if lock is None:
                continue
            try:
                self._adopt(file)
            except sqlite3.Error as error:  # died before its table was made, or corrupt
                log.error("%s cannot be taken over: %s", file, error)
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


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _try_lock(file: Path) -> int | None:
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _salt(directory: Path) -> bytes:
    """The directory's random salt, made once; a link makes the creation atomic."""
    file = directory / "salt"
    if not file.exists():
        part = directory / f"salt.{os.getpid()}.{threading.get_ident()}"
        part.write_bytes(os.urandom(32))
        part.chmod(0o600)
        with suppress(FileExistsError):
            os.link(part, file)
        part.unlink()
    return file.read_bytes()
