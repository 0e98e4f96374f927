"""Rounding of numbers that a message suggests: the suggested value itself must be accepted."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal


def rounded_up(value: float, decimals: int = 0) -> float:
    """Return ``value``, rounded up to ``decimals`` decimals.

    Use it for a lower limit, a waiting time or an upper bound that is shown.
    """
    exponent = Decimal(1).scaleb(-decimals)
    return float(_shortest(value).quantize(exponent, rounding=ROUND_CEILING))


def minimum_text(value: float, digits: int = 6) -> str:
    """Return ``value`` with at most ``digits`` significant digits, rounded up.

    Example: ``minimum_text(1.23456789)`` is ``1.23457``.
    """
    context = Context(prec=digits, rounding=ROUND_CEILING)
    return f"{float(context.plus(_shortest(value))):.{max(digits, 6)}g}"


def exact_text(value: float) -> str:
    """Return ``value`` as its user wrote it, to 15 significant digits: ``3.9``."""
    return f"{value:.15g}"


def _shortest(value: float) -> Decimal:
    """Return the number that ``value`` stands for: 0.3 also for 0.1 + 0.2."""
    return Decimal(exact_text(value))


def shown_ms(duration_ms: float) -> str:
    """Return a duration in whole milliseconds with its unit, never as 0 ms."""
    return "less than 1 ms" if duration_ms < 1 else f"{duration_ms:.0f} ms"
