"""Text of unknown origin as part of a message."""

from __future__ import annotations


def short_line(text: str, longest: int) -> str:
    """Return at most ``longest`` characters, with ``?`` for those that are not printable."""
    return "".join(char if char.isprintable() else "?" for char in text[:longest])
