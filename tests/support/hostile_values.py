"""Strings and numbers that some place might refuse, and a check that a store keeps them."""

from __future__ import annotations

import math

from pydantic import ValidationError

from shared.ledger.entry import LedgerEntry
from shared.ledger.server.store import LedgerStore
from tests.support.entries import caller

STRINGS = [
    "", " ", "x", "x" * 64, "x" * 65, "é" * 64, "🎬" * 64, "🎬" * 65, "スポーツ" * 64, "x" * 256,
    "x" * 257, "x" * 2_001, "a\0b", "\0", "\ud800", "a\nb", "a\x85b", "\x7f", "\ufeff", "\uffff",
    "\U0010ffff", "' OR 1=1 --", '"', "\\N", "\\u0000", "{}", "%s", "?", "a:b",
]  # fmt: skip
"""Strings that some place might refuse."""
NUMBERS = [
    0, 1, -1, 0.5, 1.0, math.nextafter(1.0, 2), -0.0, 5e-324, 1e-300, 1e6, 1e9, 1e12, 1e13, 1e20,
    1e21, 1e300, 1.8e308, math.inf, -math.inf, math.nan, 2**31, 2**53, 2**53 + 1, 2**63, 10**30,
    60_000, 60_001, 1_000, 1_001, 253_402_300_799.0, 253_402_300_800.0, True, False,
]  # fmt: skip
"""Numbers that some place might refuse."""


def check_store(store: LedgerStore, field: str) -> None:
    """Store each value that the field of an entry accepts, and read it again unchanged."""
    by_key = {}
    for number, value in enumerate([*STRINGS, *NUMBERS, None, getattr(caller(), field)]):
        facts = {"attempt_id": f"a{number}", "request_id": "r1", field: value}
        try:
            entry = LedgerEntry.model_validate({**caller().__dict__, **facts})
        except ValidationError:
            continue
        assert LedgerEntry.model_validate_json(entry.model_dump_json()) == entry
        by_key[entry.attempt_id, entry.side] = entry
    assert by_key
    store.upsert(list(by_key.values()))
    assert {(entry.attempt_id, entry.side): entry for entry in store.entries()} == by_key
