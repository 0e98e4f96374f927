"""Identifiers of requests and attempts: UUIDs of version 7 (RFC 9562), which begin with a time.

The time is that of the request, by the clock of the mobile. All attempts of a request have it, so
that they belong to the same day, and the ledger can keep each day in a partition of its own.
"""

from __future__ import annotations

import os
import re
import time
from datetime import date, timedelta

TIME_DIGITS = 12
"""Hexadecimal digits at the start of an identifier: milliseconds since 1970."""
FIRST_DAY, AFTER_LAST_DAY = date(2020, 1, 1), date(2100, 1, 1)
"""An identifier with a time before or after these days is not dated."""
_EPOCH = date(1970, 1, 1)
_DAY_MS = 86_400_000
_DATED = re.compile(r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}")


def new_id(of: str | None = None) -> str:
    """Return a new identifier, 32 hexadecimal digits, with the time of ``of`` or of now."""
    if of is None or not _DATED.fullmatch(of):
        digits = f"{time.time_ns() // 1_000_000:012x}"[-TIME_DIGITS:]
    else:
        digits = of[:TIME_DIGITS]
    random = int.from_bytes(os.urandom(10), "big")
    low = (random & 0x3FFFFFFFFFFFFFFF) | 0x8000000000000000
    return f"{digits}7{random >> 68:03x}{low:016x}"


def day_of(identifier: str) -> date | None:
    """Return the day (UTC) of an identifier; None if it is not dated.

    It is a pure function of the identifier, and equals ``entry_day`` of the ledger's PostgreSQL
    database: an entry that is delivered again falls into the same partition.
    """
    if not _DATED.fullmatch(identifier):
        return None
    day = _EPOCH + timedelta(days=min(int(identifier[:TIME_DIGITS], 16) // _DAY_MS, 60_000))
    return day if FIRST_DAY <= day < AFTER_LAST_DAY else None


def first_id(day: date) -> str:
    """Return the digits of the day's first millisecond, which begin no identifier of a day before.

    ``first_id(day) <= identifier < first_id(day + 1 day)`` for each identifier of the day.
    """
    return f"{(day - _EPOCH).days * _DAY_MS:012x}"
