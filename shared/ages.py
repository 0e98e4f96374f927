"""Ages such as 90d, 12h or 10m, as users give them on a command line or in a query."""

from __future__ import annotations

import re

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}


def parse_age(text: str, units: str = "smhdw") -> float | None:
    """Return the seconds of an age, or None if ``text`` is no age of more than 0.

    ``units`` are the allowed ones of s, m (minutes), h, d and w.
    """
    match = re.fullmatch(rf"([0-9]{{1,6}}(?:\.[0-9]{{1,3}})?)([{units}])", text)
    if not match or not float(match[1]):
        return None
    return float(match[1]) * _SECONDS[match[2]]
