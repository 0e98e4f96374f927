"""Intended send times of requests, drawn or read before the first request is sent."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

from shared.errors import InvalidInput, TooLarge
from shared.user_files import read_text, split_lines

MAX_REQUESTS = 200_000
MAX_SECONDS = 3_600.0
MAX_CHAOS_REQUESTS = 2_000_000
"""Upper bound for `testbed.chaos`, which sends to processes of its own only."""

Shape = Sequence[tuple[float, float]]
"""Points (share of the duration, share of the rate), joined by lines.

A step is two points at one time.
"""
FLAT: Shape = ((0.0, 1.0), (1.0, 1.0))


def rate_share(shape: Shape, share: float) -> float:
    """Return the share of the rate at a share of the duration."""
    (x0, y0), *rest = shape
    for x1, y1 in rest:
        if share < x1:
            return y0 + (y1 - y0) * (share - x0) / (x1 - x0)
        x0, y0 = x1, y1
    return y0


def poisson(
    rate: float, duration_s: float, shape: Shape, seed: int, max_requests: int = MAX_REQUESTS
) -> list[float]:
    """Draw the times of a Poisson process, in seconds from the start, thinned to the shape.

    ``rate`` is in requests a second; raises `TooLarge` beyond ``max_requests``.
    """
    peak = max(y for _, y in shape)
    if duration_s > MAX_SECONDS or rate * peak * duration_s > max_requests:
        raise TooLarge(
            f"load: a run has at most {max_requests:,} requests and {MAX_SECONDS:,.0f} s; "
            "choose a lower --rate or a shorter --duration",
            limit=max_requests,
        )
    rng = random.Random(seed)
    times, now = [], rng.expovariate(rate * peak)
    while now < duration_s:
        if rng.random() * peak < rate_share(shape, now / duration_s):
            times.append(now)
        now += rng.expovariate(rate * peak)
    return times


def from_trace(path: Path, duration_s: float) -> tuple[list[float], int]:
    """Read times in seconds from the start, one per line.

    Returns them sorted, and how many were left out because they are after ``duration_s``. Raises
    `InvalidInput` at the first line that is not a time.
    """
    times = []
    for number, line in enumerate(split_lines(read_text(path, "arrivals")), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            time = float(line)
        except ValueError:
            time = math.nan
        if not 0 <= time < math.inf:
            raise InvalidInput(
                f"arrivals: {path} line {number} is not a number of seconds from the start"
            )
        times.append(time)
    in_file = len(times)
    times = sorted(time for time in times if time < duration_s)
    if not times or len(times) > MAX_REQUESTS:
        raise InvalidInput(f"arrivals: {path} has {len(times):,} within the duration; "
                           f"1 to {MAX_REQUESTS:,} can be sent")  # fmt: skip
    return times, in_file - len(times)
