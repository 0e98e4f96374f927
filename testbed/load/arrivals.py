"""When requests are meant to be sent: decided before the first one is, whatever the server does."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

from shared.errors import InvalidInput, TooLarge

MOST_REQUESTS = 200_000
MOST_SECONDS = 3_600.0
MOST_OF_CHAOS = 2_000_000
"""Of `testbed.chaos`, which sends to processes of its own alone."""

Shape = Sequence[tuple[float, float]]
"""Points (share of the duration, share of the rate), joined by lines; a step has two at once."""


def factor(shape: Shape, share: float) -> float:
    """The share of the rate at this share of the duration."""
    (x0, y0), *rest = shape
    for x1, y1 in rest:
        if share < x1:
            return y0 + (y1 - y0) * (share - x0) / (x1 - x0)
        x0, y0 = x1, y1
    return y0


def poisson(
    rate: float, duration_s: float, shape: Shape, seed: int, most_requests: int = MOST_REQUESTS
) -> list[float]:
    """Seconds from the start of a Poisson process, thinned to the shape; raises `TooLarge`."""
    most = max(y for _, y in shape)
    if duration_s > MOST_SECONDS or rate * most * duration_s > most_requests:
        raise TooLarge(
            f"load: at most {most_requests:,} requests in {MOST_SECONDS:,.0f} s are sent; "
            "take a lower --rate or a shorter --duration",
            limit=most_requests,
        )
    dice = random.Random(seed)
    times, now = [], dice.expovariate(rate * most)
    while now < duration_s:
        if dice.random() * most < factor(shape, now / duration_s):
            times.append(now)
        now += dice.expovariate(rate * most)
    return times


def from_trace(path: Path, duration_s: float) -> tuple[list[float], int]:
    """Seconds from the start, one a line, and how many more came after ``duration_s``.

    Raises `InvalidInput`: a line that is no such time stops the run, it is not passed over.
    """
    times = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"arrivals: {path} cannot be read ({error})") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            time = float(line)
        except ValueError:
            time = math.nan
        if not 0 <= time < math.inf:
            raise InvalidInput(f"arrivals: line {number} is no number of seconds from the start")
        times.append(time)
    in_file = len(times)
    times = sorted(time for time in times if time < duration_s)
    if not times or len(times) > MOST_REQUESTS:
        raise InvalidInput(f"arrivals: {path} has {len(times):,} within the duration; "
                           f"1 to {MOST_REQUESTS:,} are sent")  # fmt: skip
    return times, in_file - len(times)
