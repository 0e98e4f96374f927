"""The durable outbox: entries on disk until the ledger has them. Standard library only.

SQLite in WAL mode without a sync per commit: what was recorded survives a killed process (the
pages are the kernel's by then); the last commits before a power cut may be lost. The syncs of a
checkpoint are the shipper's (`Outbox.settle`), not a request's.
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

from shared.domain import Delivery, Reason, Side, State
from shared.errors import DimeeError, NotReady
from shared.ledger.entry import LedgerEntry

log = logging.getLogger(__name__)

MAX_KEPT = 10_000
"""Ends that wait in memory for a disk that is full; about a kilobyte each."""
_AT_ONCE = 100  # rows forgotten in one transaction: a request waits for no more than these
_MOVE_AFTER = 500  # changed rows between two checkpoints: about SQLite's own thousand pages
_WAL_PAGES = 10_000  # 40 MB: checkpointed by a request only if the shipper did not, for long
_IN_MEMORY = -1  # the version of a row that is not on disk

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


class Outbox:
    """One process's entries that the ledger does not have yet; thread-safe."""

    def __init__(self, file: Path, lock: int, salt: bytes) -> None:
        self._lock_file = lock
        self._salt = salt
        self._guard = threading.Lock()
        self.recorded = threading.Event()
        """Set whenever there is something new to deliver."""
        self.dropped = 0
        """Ends that could neither be written nor kept in memory."""
        self._file = file
        self._changed = 0
        self._kept: dict[tuple[str, str], str] = {}
        self._db = _connect(file)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
        self._db.executescript(_SCHEMA)
        self._reading = threading.Lock()
        self._reader = _connect(file)  # reading a long backlog holds up nobody who records

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

        Raises `NotReady` where they cannot be written: no request is begun or answered without its
        entries.
        """
        try:
            self._write([_row(entry) for entry in entries])
        except (sqlite3.Error, ValueError) as error:
            # the database's reason, never the content of an entry
            why = str(error) if isinstance(error, sqlite3.Error) else type(error).__name__
            log.error("%d entries could not be written to the outbox: %s", len(entries), why)
            raise NotReady(
                f"the outbox in {self._file.parent} cannot be written ({why}), and no request is "
                "answered without its ledger entries; make room there or set DIMEE_STATE_DIR"
            ) from None
        finally:
            self.recorded.set()

    def record_or_buffer(self, *entries: LedgerEntry) -> None:
        """Book the ends of attempts that are answered to nobody; never raises.

        Where they cannot be written they wait in memory, at most `MAX_KEPT`, and are delivered from
        there.
        """
        for entry in entries:
            try:
                self.record(entry)
            except NotReady:
                key = (entry.attempt_id, entry.side.value)
                if len(self._kept) >= MAX_KEPT or not _is_text(entry):
                    self.dropped += 1
                else:
                    self._kept.setdefault(key, entry.model_dump_json())

    def checkpoint(self) -> None:
        """Write what waits in memory, and move the log into the database; for the shipper."""
        for (attempt_id, side), body in list(self._kept.items()):
            try:
                self._write([(attempt_id, side, True, body)])
            except sqlite3.Error:
                break
            self._kept.pop((attempt_id, side), None)
        if self._changed < _MOVE_AFTER:
            return
        with suppress(sqlite3.Error), self._reading:
            self._changed = 0
            self._reader.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def pending(self, limit: int) -> list[tuple[str, str, int, str]]:
        """Undelivered rows: (attempt_id, side, version, JSON body)."""
        kept = [(*key, _IN_MEMORY, body) for key, body in list(self._kept.items())[:limit]]
        with self._reading:
            return (
                kept
                + self._reader.execute(
                    "SELECT attempt_id, side, version, body FROM outbox "
                    "WHERE delivered < version AND NOT quarantined LIMIT ?",
                    (limit - len(kept),),
                ).fetchall()
            )

    def mark_delivered(self, rows: list[tuple[str, str, int]]) -> None:
        """Forget what the ledger has; a row that changed meanwhile or is still open stays."""
        for attempt_id, side, version in rows:
            if version == _IN_MEMORY:
                self._kept.pop((attempt_id, side), None)
        keys = [(version, attempt_id, side) for attempt_id, side, version in rows if version > 0]
        where = "WHERE attempt_id = ? AND side = ?"
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            self._changed += len(some)
            with self._guard, _transaction(self._db):
                self._db.executemany(f"UPDATE outbox SET delivered = ? {where}", some)
                self._db.executemany(
                    f"DELETE FROM outbox {where} AND terminal AND delivered = version",
                    [key[1:] for key in some],
                )

    def quarantine(self, attempt_id: str, side: str) -> None:
        """Keep a row that the ledger refuses, and deliver the others."""
        with self._guard:
            self._db.execute(
                "UPDATE outbox SET quarantined = 1 WHERE attempt_id = ? AND side = ?",
                (attempt_id, side),
            )

    def count_pending(self) -> int:
        """How many rows the ledger does not have in their present state; reads all of them."""
        with self._reading:
            row = self._reader.execute(
                "SELECT count(*) FROM outbox WHERE delivered < version AND NOT quarantined"
            ).fetchone()
        return int(row[0]) + len(self._kept)

    def hash_text(self, text: str, pair: str | None) -> str:
        """A salted hash (HMAC-SHA256, 128 bits in hex): tells equal texts, reveals none."""
        content = text if pair is None else f"{text}\x1f{pair}"
        message = content.encode("utf-8", "surrogatepass")
        return hmac.new(self._salt, message, hashlib.sha256).hexdigest()[:32]

    def close(self) -> None:
        """Close the file and let another process have it."""
        self.checkpoint()
        with self._guard, self._reading:
            self._reader.close()
            self._db.close()
        os.close(self._lock_file)

    def _write(self, rows: list[tuple[str, str, bool, str]]) -> None:
        with self._guard:
            self._changed += len(rows)
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
            except ValidationError:  # another version's; it must not keep this one from starting
                log.error("the outbox's open entry %s cannot be read", attempt_id)
                self.quarantine(attempt_id, side)
        # an audit's request has ended before it; of a hedged pair the first is the last word
        lasts: dict[str, LedgerEntry] = {}
        for entry in sorted(entries, key=lambda one: one.ordinal, reverse=True):
            if entry.side is Side.CALLER and entry.reason is not Reason.AUDIT:
                lasts[entry.request_id] = entry
        for entry in entries:
            ended: dict[str, object] = {"state": State.ABANDONED, "error_code": "process_died"}
            if entry.side is Side.CALLER:
                final = entry is lasts.get(entry.request_id)
                ended |= {"delivery": Delivery.UNKNOWN, "final": final}
            self.record_or_buffer(entry.model_copy(update=ended))

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


def _connect(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(file, check_same_thread=False, isolation_level=None)


def _row(entry: LedgerEntry) -> tuple[str, str, bool, str]:
    return entry.attempt_id, entry.side, entry.is_terminal, entry.model_dump_json()


def _is_text(entry: LedgerEntry) -> bool:
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
        if db.in_transaction:  # a full disk ends it by itself
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
