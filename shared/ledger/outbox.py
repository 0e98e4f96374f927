"""The durable outbox: keeps a process's entries on disk until the ledger has stored them.

Recorded entries survive the death of the process; a power cut may lose the last commits. The
shipper's thread does the work that takes long (`Outbox.maintain`), so that no request waits for a
sync. A reserve of disk space is set aside while entries are recorded. When the file cannot be
written, recording is refused, and the reserve is released, so that delivered entries can be deleted
and space becomes free.
"""

from __future__ import annotations

import hmac
import logging
import os
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

from shared.errors import DimeeError, NotReady
from shared.files import create_once, other_owner_remedy
from shared.ledger.abandoned import ends_of_open_attempts
from shared.ledger.disk_reserve import BACKLOG_HEADROOM_BYTES, DiskReserve, why_unwritable
from shared.ledger.entry import LedgerEntry
from shared.ledger.file_lock import try_lock
from shared.ledger.outbox_table import SHRINK_FREE_PAGES, OutboxTable, Row, RowKey
from shared.ledger.recording_state import (
    DAMAGED_REMEDY,
    MB,
    OutboxReport,
    RecordingState,
    error_reason,
    is_full,
    is_locked,
)
from shared.ledger.sqlite_file import is_damaged
from shared.process_bound import ProcessBound

log = logging.getLogger(__name__)

MAX_BUFFERED = 10_000
"""Entries kept in memory while the file cannot be written; about a kilobyte each."""
# waiting rows that are a backlog: one delivery
_BACKLOG_ROWS = 500
# version of a row that is only in memory
_IN_MEMORY = -1


class Outbox(ProcessBound):
    """Entries of one process that are not yet delivered to the ledger. Thread-safe."""

    def __init__(self, file: Path, lock: int, salt: bytes, max_mb: float | None = None) -> None:
        self._file_lock = lock
        self._salt = salt
        self.recorded = threading.Event()
        """Set when an entry was recorded; the shipper waits for it."""
        self._dropped = 0
        self._file = file
        self._buffered: dict[tuple[str, str], str] = {}
        self._unadopted: list[Path] = []
        self._room_lock = threading.Lock()
        self._reserve = DiskReserve(file.with_suffix(".reserve"))
        self._state = RecordingState(file.parent, None if max_mb is None else max_mb * MB)
        try:
            self._table = OutboxTable(file)
        except sqlite3.Error:
            # opening needs space for SQLite's own files; an earlier process has set it aside
            self._reserve.release()
            self._table = OutboxTable(file)
        if not self._reserve.take():
            self._state.refuse_for_space()
        self._closed = False
        self.bind_to_process()

    @classmethod
    def claim(cls, directory: Path, writer: str, max_mb: float | None = None) -> Outbox:
        """Open the first outbox in ``directory`` that no live process holds, or a new one.

        This process then also delivers the entries of earlier processes: their open attempts end
        as abandoned, and the rows of every other unused outbox move into this one. ``writer`` names
        the process in errors; ``max_mb`` is the size at which entries are refused. Raises
        `DimeeError` if the directory cannot be used. A full disk is no reason to raise if this
        outbox was used before: its entries must be delivered.
        """
        lock: int | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            salt = _salt(directory)
            number = 0
            while (lock := try_lock(directory / f"outbox-{number}.lock")) is None:
                number += 1
            outbox = cls(directory / f"outbox-{number}.sqlite", lock, salt, max_mb)
            outbox.adopt_unused()
            outbox._abandon_open()
        except (OSError, sqlite3.Error) as error:
            if lock is not None:
                os.close(lock)
            reason = error_reason(directory, error)
            raise DimeeError(
                f"state-dir: {directory} cannot hold the {writer}'s outbox ({reason}); "
                f"{_start_remedy(error)}"
            ) from None
        return outbox

    @property
    def refuses(self) -> bool:
        """True while no entry can be recorded; `maintain` tries to end that."""
        return self._state.problem is not None

    def report(self) -> OutboxReport:
        """Return the state of this outbox; reads no file."""
        return self._state.report(self._dropped)

    def record(self, *entries: LedgerEntry) -> None:
        """Write new entries or the ends of open ones in one transaction.

        A terminal state is never changed. Raises `NotReady` if the entries cannot be written,
        because no request may start and no answer be given without its entries.
        """
        self._check_usable()
        try:
            self._state.check()
            self._table.check_file_if_due()
            self._upsert([_row(entry) for entry in entries])
        except sqlite3.Error as error:
            raise self._refuse(error) from None
        except ValueError as error:
            # not the error's text, which contains the entry
            reason = type(error).__name__
            log.error("%d entries could not be written to the outbox: %s", len(entries), reason)
            raise NotReady(
                f"an entry cannot be written to the outbox ({reason}), and no request is answered "
                "without its ledger entries"
            ) from None
        finally:
            self.recorded.set()
        if self._table.checkpoint_overdue:
            try:
                self._table.checkpoint(due_rows=0)
            except sqlite3.Error as error:
                self._write_failed(error)  # refuses later entries; these are recorded

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
                    self._dropped += 1
                else:
                    self._buffered.setdefault(key, _body(entry))
                    self.recorded.set()

    def maintain(self) -> None:
        """Do the work of the shipper's thread between two deliveries.

        Write what is only in memory, checkpoint the WAL, measure the file and give free space back.
        While entries are refused, try whether they can be recorded again.
        """
        try:
            self._table.write_done()
            self._write_buffered()
            self._table.checkpoint()
            # on a full disk each page counts: the ledger may need it to store the next entries
            self._table.shrink(1 if self.refuses else SHRINK_FREE_PAGES)
            self._state.measured(self._table.used_bytes())
            if self.refuses:
                self._try_resume()
            elif self._unadopted:
                self.adopt_unused()
        except sqlite3.Error as error:
            self._write_failed(error)

    def pending(self, limit: int) -> list[Row]:
        """Return at most ``limit`` undelivered rows: (attempt_id, side, version, JSON body)."""
        buffered = [(*key, _IN_MEMORY, body) for key, body in list(self._buffered.items())[:limit]]
        return buffered + self._table.pending(limit - len(buffered))

    def mark_delivered(self, rows: list[RowKey]) -> None:
        """Delete delivered rows; keep those that are open or have changed since they were sent.

        Does not raise if the file cannot be written: the rows are remembered as delivered in
        memory, so that the next ones can be sent, and deleted as soon as that is possible.
        """
        for attempt_id, side, version in rows:
            if version == _IN_MEMORY:
                self._buffered.pop((attempt_id, side), None)
        keys = [key for key in rows if key[2] != _IN_MEMORY]
        try:
            self._table.mark_delivered(keys)
        except sqlite3.Error as error:
            self._table.remember_done(keys, rejected=False)
            self._write_failed(error)

    def quarantine(self, attempt_id: str, side: str, version: int) -> None:
        """Exclude a row that the ledger rejects from further deliveries; the row stays on disk."""
        if version == _IN_MEMORY:
            self._buffered.pop((attempt_id, side), None)
            self._dropped += 1
            return
        try:
            self._table.quarantine(attempt_id, side)
        except sqlite3.Error as error:
            self._table.remember_done([(attempt_id, side, version)], rejected=True)
            self._write_failed(error)

    def count_pending(self, limit: int = -1) -> int:
        """Return the number of undelivered rows, at most ``limit``; without it reads all rows."""
        found = self._table.count_pending(limit) + len(self._buffered)
        return found if limit < 0 else min(limit, found)

    def count_rejected(self) -> int:
        """Return the number of rows that the ledger rejects; they stay on disk."""
        return self._table.count_quarantined()

    def attempt_ids(self, limit: int) -> list[str]:
        """Return the attempts of at most the last ``limit`` rows, oldest first."""
        return self._table.attempt_ids(limit)

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
        """Close the files and release the outbox to other processes.

        The reserve stays on disk while entries wait, because the next process needs it. A forked
        child leaves everything to its parent.
        """
        if self._closed or self.is_foreign:
            return
        self.maintain()
        with suppress(sqlite3.Error):
            if not self._table.count_pending(1):
                self._reserve.release()
        self._closed = True
        self._table.close()
        os.close(self._file_lock)

    def _upsert(self, rows: list[tuple[str, str, bool, str]]) -> None:
        try:
            self._table.upsert(rows)
        except sqlite3.Error as error:
            # the WAL may hold most of the disk
            if not (is_full(error) and self._make_room()):
                raise
            self._table.upsert(rows)

    def _refuse(self, error: sqlite3.Error) -> NotReady:
        """Refuse entries until `maintain` finds that they can be written."""
        refusal = self._state.refuse(error)
        self.recorded.set()
        return refusal

    def _write_failed(self, error: sqlite3.Error) -> None:
        """Make room on a full disk; refuse entries if that does not help or is not the cause."""
        made_room = not is_locked(error) and self._make_room()
        if not (made_room and is_full(error)):
            self._refuse(error)

    def _make_room(self) -> bool:
        """Empty the WAL into the file; return whether the reserve can be set aside again.

        The file may grow by that, and the deletion of delivered rows needs space too, so the
        reserve is released first.
        """
        with self._room_lock:
            self._reserve.release()
            with suppress(sqlite3.Error):
                self._table.empty_wal()
                self._table.write_done()
            return self._reserve.take()

    def _try_resume(self) -> None:
        """Record again if the reserve can be set aside and a page be written."""
        self._table.check_file()
        if self._state.at_limit():
            return
        backlog = self._table.count_pending(_BACKLOG_ROWS) == _BACKLOG_ROWS
        if backlog and not self._reserve.held:
            room = self._reserve.take(BACKLOG_HEADROOM_BYTES)
        else:
            room = self._reserve.take()
            if not room:
                self._table.empty_wal(keep_space=False)
                room = self._reserve.take()
        if not room:
            self._state.refuse_for_space()
            return
        self._table.probe()
        self._state.resume()

    def _write_buffered(self) -> None:
        for (attempt_id, side), body in list(self._buffered.items()):
            self._table.upsert([(attempt_id, side, True, body)])
            self._buffered.pop((attempt_id, side), None)

    def _abandon_open(self) -> None:
        """End the open attempts of the process that had this outbox before."""
        ends, unreadable = ends_of_open_attempts(self._table)
        for row in unreadable:
            self.quarantine(*row)
        self.record_or_buffer(*ends)

    def adopt_unused(self) -> None:
        """Take over the rows of outboxes that no process uses; on a full disk, try again later."""
        files = self._unadopted or sorted(self._file.parent.glob("outbox-*.sqlite"))
        self._unadopted = []
        for file in files:
            if file == self._file or not file.exists():
                continue
            lock = try_lock(file.with_suffix(".lock"))
            if lock is None:
                continue
            try:
                self._adopt(file)
            finally:
                os.close(lock)

    def _adopt(self, file: Path) -> None:
        try:
            if not self.refuses:
                _end_open_attempts(file)
                self._table.adopt(file)
                DiskReserve(file.with_suffix(".reserve")).release()
                return
        except sqlite3.DatabaseError as error:
            if why_unwritable(self._file.parent) is None:
                # the file is corrupt, or its process died before it created the table
                log.error("the entries of %s cannot be adopted: %s", file, error)
                return
            self._refuse(error)
        self._unadopted.append(file)


def _end_open_attempts(file: Path) -> None:
    """End the open attempts in the outbox of a dead process."""
    table = OutboxTable(file)
    try:
        ends, unreadable = ends_of_open_attempts(table)
        for attempt_id, side, _ in unreadable:
            table.quarantine(attempt_id, side)
        table.upsert([_row(end) for end in ends])
    finally:
        table.close()


def _start_remedy(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return other_owner_remedy()
    if is_damaged(error):
        return DAMAGED_REMEDY
    return "free disk space or choose another with DIMEE_STATE_DIR"


def _row(entry: LedgerEntry) -> tuple[str, str, bool, str]:
    return entry.attempt_id, entry.side, entry.is_terminal, _body(entry)


def _body(entry: LedgerEntry) -> str:
    """Return an entry as JSON without absent values: an earlier ledger knows no new fields."""
    return entry.model_dump_json(exclude_none=True)


def _is_serialisable(entry: LedgerEntry) -> bool:
    try:
        _body(entry)
    except ValueError:
        return False
    return True


def _salt(directory: Path) -> bytes:
    """Return the directory's random salt, which the first process creates."""
    return create_once(directory / "salt", os.urandom(32))
