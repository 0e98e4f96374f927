"""Reading a tier's outbox."""

from __future__ import annotations

from pathlib import Path

from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox


def recorded_states(folder: Path, tier: str) -> list[tuple[str, str | None]]:
    """Return state and error code of every entry that a restarted tier would deliver."""
    outbox = Outbox.claim(folder / tier, tier)
    rows = [LedgerEntry.model_validate_json(row[3]) for row in outbox.pending(100)]
    outbox.close()
    return [(row.state.value, row.error_code) for row in rows]
