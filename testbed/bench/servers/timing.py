"""Timing of model calls, shared by the scripts of this folder. Imports no package of dimee."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

Call = Callable[[int, int], None]
"""Function that runs a model once on so many rows of so many tokens."""


def time_calls(
    calls: dict[str, Call], shapes: Sequence[Sequence[int]], count: int, runs: int
) -> dict[str, dict[str, float]]:
    """Return milliseconds of one call by name and shape.

    They are medians of ``runs`` rounds of ``count`` calls; the names alternate within a round.
    """
    times_ms: dict[str, dict[str, list[float]]] = {name: {} for name in calls}
    for rows, tokens in shapes:
        for call in calls.values():
            call(rows, tokens)
            call(rows, tokens)
        for _ in range(runs):
            for name, call in calls.items():
                started = time.perf_counter()
                for _ in range(count):
                    call(rows, tokens)
                call_ms = (time.perf_counter() - started) * 1e3 / count
                times_ms[name].setdefault(f"{rows}x{tokens}", []).append(call_ms)
    return {
        name: {shape: round(statistics.median(ms), 3) for shape, ms in shapes_ms.items()}
        for name, shapes_ms in times_ms.items()
    }
