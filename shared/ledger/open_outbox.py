"""Opens the outbox of a process according to its settings, or none if it records nothing."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from shared.ledger.outbox_table import Row, RowKey
from shared.ledger.recording_state import OFF, OutboxReport
from shared.settings import NO_LEDGER, BundleSettings

log = logging.getLogger(__name__)


class NoOutbox(Outbox):
    """Outbox of a process without a ledger: it keeps no entry and uses no file."""

    def __init__(self) -> None:
        self._salt = os.urandom(32)
        self.recorded = threading.Event()

    @property
    def refuses(self) -> bool:
        """False: there is nothing that could not be written."""
        return False

    def report(self) -> OutboxReport:
        """Return that nothing is recorded."""
        return OFF

    def record(self, *entries: LedgerEntry) -> None:
        """Forget the entries."""

    def record_or_buffer(self, *entries: LedgerEntry) -> None:
        """Forget the entries."""

    def maintain(self) -> None:
        """Do nothing."""

    def adopt_unused(self) -> None:
        """Do nothing."""

    def pending(self, limit: int) -> list[Row]:
        """Return no row."""
        return []

    def mark_delivered(self, rows: list[RowKey]) -> None:
        """Do nothing."""

    def count_pending(self, limit: int = -1) -> int:
        """Return 0."""
        return 0

    def count_rejected(self) -> int:
        """Return 0."""
        return 0

    def attempt_ids(self, limit: int) -> list[str]:
        """Return no attempt."""
        return []

    def close(self) -> None:
        """Do nothing."""


def open_outbox(settings: BundleSettings, writer: str) -> Outbox:
    """Return the outbox of the process ``writer`` in its folder of the state directory.

    With ``DIMEE_LEDGER_URL=off`` nothing is recorded, and a warning says so. Raises `DimeeError` if
    the directory cannot be used.
    """
    if settings.ledger_url == NO_LEDGER:
        log.warning("%s", OFF.problem)
        return NoOutbox()
    return Outbox.claim(Path(settings.state_dir) / writer, writer, settings.outbox_max_mb)
