"""Buckets of a GPU's batches: rows and tokens are rounded up to a few sizes.

A CUDA graph has fixed shapes, so that each pair of sizes has a graph of its own.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SMALLEST_WIDTH = 32


def width_buckets(max_tokens: int) -> tuple[int, ...]:
    """Return the widths in tokens: 32, 64, 128, … and ``max_tokens``, the bundle's limit."""
    widths = []
    width = SMALLEST_WIDTH
    while width < max_tokens:
        widths.append(width)
        width *= 2
    return (*widths, max_tokens)


def bucket_of(size: int, buckets: Sequence[int]) -> int:
    """Return the smallest bucket that holds ``size``; the largest one if none does."""
    return buckets[min(bisect_left(buckets, size), len(buckets) - 1)]


def most_rows(width: int, max_rows: int, max_tokens: int) -> int:
    """Return the largest bucket of rows for a width, within both limits; at least 1."""
    allowed = min(max_rows, max_tokens // width)
    return ROWS[max(0, bisect_right(ROWS, allowed) - 1)]
