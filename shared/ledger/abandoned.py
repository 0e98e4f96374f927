"""Ends of the attempts that a process left open when it died."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from shared.domain import Delivery, Reason, Side, State
from shared.ledger.entry import PROCESS_DIED, LedgerEntry
from shared.ledger.outbox_table import OutboxTable, RowKey

log = logging.getLogger(__name__)


def ends_of_open_attempts(table: OutboxTable) -> tuple[list[LedgerEntry], list[RowKey]]:
    """Return the ends of a dead process's open attempts, and the open rows that cannot be read.

    The final attempt of each request is its first open one; audits are never final.
    """
    entries, unreadable = [], []
    for attempt_id, side, version, body in table.open_rows():
        try:
            entries.append(LedgerEntry.model_validate_json(body))
        except ValidationError:
            # another version wrote it; this process must start nevertheless
            log.error("the outbox's open entry %s cannot be read", attempt_id)
            unreadable.append((attempt_id, side, version))
    final_entries: dict[str, LedgerEntry] = {}
    for entry in sorted(entries, key=lambda entry: entry.ordinal, reverse=True):
        if entry.side is Side.CALLER and entry.reason is not Reason.AUDIT:
            final_entries[entry.request_id] = entry
    ends = []
    for entry in entries:
        changes: dict[str, object] = {"state": State.ABANDONED, "error_code": PROCESS_DIED}
        if entry.side is Side.CALLER:
            final = entry is final_entries.get(entry.request_id)
            changes |= {"delivery": Delivery.UNKNOWN, "final": final}
        ends.append(entry.model_copy(update=changes))
    return ends, unreadable
