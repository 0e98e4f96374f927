"""State of an outbox: whether entries can be recorded, and if not, why and what to do."""

from __future__ import annotations

import logging
import sqlite3
import threading
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from shared.errors import NotReady
from shared.ledger.disk_reserve import why_unwritable
from shared.ledger.sqlite_file import RemovedFileError, is_damaged

log = logging.getLogger(__name__)

MB = 1_000_000
WARNING_SHARE = 0.8
"""Share of the outbox's limit at which a warning is given."""
_RESUME_SHARE = 0.95

DAMAGED_REMEDY = (
    "move the outbox's files to another folder, where `sqlite3 FILE .recover` may read their rows, "
    "and start again"
)
"""Remedy for an outbox whose file is damaged."""
_REMOVED = "its file was removed or replaced"
_REMEDIES = {
    "the disk is full": "free disk space or set DIMEE_STATE_DIR to another folder",
    "the file system is read-only": "mount it writable or set DIMEE_STATE_DIR to another folder",
    _REMOVED: "restart the process when `dimee status` shows no undelivered entries",
    "another program has locked it": "end the program that has the file open",
}
_OTHER_REMEDY = "free disk space or set DIMEE_STATE_DIR to another folder"
_CAP = (
    "start the ledger at DIMEE_LEDGER_URL, raise DIMEE_OUTBOX_MAX_MB, or set DIMEE_LEDGER_URL=off "
    "to record nothing"
)


class OutboxReport(BaseModel):
    """State of one process's outbox.

    ``recording`` is ``refused`` while no entry can be written, and then no request is answered; it
    is ``off`` if the process records nothing. ``problem`` says why and what to do, also while the
    outbox only nears its limit. ``dropped`` counts ends of refused attempts that are lost.
    """

    model_config = ConfigDict(frozen=True)

    recording: Literal["on", "refused", "off"]
    problem: str | None = None
    used_mb: float = 0.0
    max_mb: float | None = None
    dropped: int = 0

    def check(self) -> None:
        """Raise `NotReady` while entries are refused: this process answers no request."""
        if self.recording == "refused":
            raise _not_recorded(str(self.problem))


OFF = OutboxReport(
    recording="off", problem="DIMEE_LEDGER_URL is off: nothing is recorded in a ledger"
)
"""Report of a process without a ledger."""


class RecordingState:
    """Reason for which an outbox refuses entries, if there is one. Thread-safe.

    Each change is logged once. ``max_bytes`` is the outbox's limit; None means that it has none.
    """

    def __init__(self, folder: Path, max_bytes: float | None) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._used_bytes = 0
        self._warned = False
        self.problem: str | None = None
        """Sentence that says why entries are refused and what to do; None if they are recorded."""

    def check(self) -> None:
        """Raise `NotReady` while entries are refused."""
        problem = self.problem
        if problem is not None:
            raise _not_recorded(problem)

    def refuse(self, error: sqlite3.Error) -> NotReady:
        """Refuse entries because the file could not be written; return the error to raise.

        It is for the entries that were not written, also if another thread finds at once that the
        next ones can be.
        """
        reason = error_reason(self._folder, error)
        remedy = _REMEDIES.get(reason, DAMAGED_REMEDY if is_damaged(error) else _OTHER_REMEDY)
        problem = f"the outbox in {self._folder} cannot be written ({reason}); {remedy}"
        self._refuse(problem)
        return _not_recorded(problem)

    def refuse_for_space(self) -> None:
        """Refuse entries because the disk has no room for the reserve."""
        reason = "the disk is full"
        self._refuse(
            f"the outbox in {self._folder} cannot be written ({reason}); {_REMEDIES[reason]}"
        )

    def measured(self, used_bytes: int) -> None:
        """Note the size of the outbox; refuse entries at its limit, and warn before it."""
        self._used_bytes = used_bytes
        if self._max_bytes is None:
            return
        if used_bytes >= self._max_bytes:
            self._refuse(
                f"the outbox in {self._folder} has reached its limit of "
                f"{self._max_bytes / MB:g} MB, because the ledger does not take its entries; {_CAP}"
            )
        near = used_bytes >= WARNING_SHARE * self._max_bytes
        if near and not self._warned:
            log.warning("%s", self._near_limit())
        self._warned = near

    def at_limit(self) -> bool:
        """Return whether the outbox is too close to its limit to record again."""
        return self._max_bytes is not None and self._used_bytes > _RESUME_SHARE * self._max_bytes

    def resume(self) -> None:
        """Record entries again."""
        with self._lock:
            if self.problem is None:
                return
            self.problem = None
        log.warning("the outbox in %s can be written again", self._folder)

    def report(self, dropped: int) -> OutboxReport:
        """Return the state; ``dropped`` is the number of lost ends. Reads no file."""
        problem = self.problem
        return OutboxReport(
            recording="on" if problem is None else "refused",
            problem=problem or (self._near_limit() if self._warned else None),
            used_mb=round(self._used_bytes / MB, 1),
            max_mb=None if self._max_bytes is None else self._max_bytes / MB,
            dropped=dropped,
        )

    def _near_limit(self) -> str:
        limit_mb = (self._max_bytes or 0) / MB
        return (
            f"the outbox in {self._folder} holds {self._used_bytes / MB:.1f} of at most "
            f"{limit_mb:g} MB; at the limit no request is answered; {_CAP}"
        )

    def _refuse(self, problem: str) -> None:
        with self._lock:
            first = self.problem is None
            self.problem = problem
        if first:
            log.error("%s; until then no request is answered", problem)


def _not_recorded(problem: str) -> NotReady:
    return NotReady(f"{problem}; no request is answered without its ledger entries")


def is_locked(error: sqlite3.Error) -> bool:
    """Return whether another connection has locked the file."""
    return _name(error).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def is_full(error: sqlite3.Error) -> bool:
    """Return whether the disk is full."""
    return _name(error) == "SQLITE_FULL"


def error_reason(folder: Path, error: sqlite3.Error | OSError) -> str:
    """Return in words why a file in ``folder`` could not be written."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, RemovedFileError):
        return _REMOVED
    if is_locked(error):
        return "another program has locked it"
    if is_full(error):
        return "the disk is full"
    if _name(error).startswith("SQLITE_READONLY"):
        return "the file system is read-only"
    if _name(error).startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN")):
        return why_unwritable(folder) or str(error)
    # the database's message only: it contains no entry
    return str(error)


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", None) or ""
