"""A link over time: a file with one change a line, or the text of one.

::

    # seconds  link, as for `parse_link`; "cut" stalls everything, "refuse" breaks and refuses
    0     4g
    20    4g,up_mbps=2,loss=0.02
    40    cut
    40.3  wifi
    repeat 60
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shared.errors import InvalidInput
from shared.link_profiles import Link, parse_link

Outage = Literal["cut", "refuse"]
OUTAGES: tuple[Outage, ...] = ("cut", "refuse")
MOST_CHANGES = 100_000


@dataclass(frozen=True, slots=True)
class State:
    """What a link is at some time; ``words`` are those it was asked for with.

    ``link`` None: as it was, with this ``outage``.
    """

    words: str
    link: Link | None = None
    outage: Outage | None = None


def parse_state(words: str) -> State:
    """``4g``, ``4g,loss=0.01``, ``cut`` or ``refuse``; raises `InvalidInput`."""
    words = words.strip()
    for outage in OUTAGES:
        if words == outage:
            return State(words, outage=outage)
    return State(words, parse_link(words))


@dataclass(frozen=True, slots=True)
class Schedule:
    """Changes by their time in seconds from the start; after ``repeat_s`` they start again."""

    changes: tuple[tuple[float, State], ...]
    repeat_s: float = math.inf

    def at(self, elapsed_s: float) -> State:
        """The state so long after the start."""
        inside = elapsed_s % self.repeat_s if math.isfinite(self.repeat_s) else elapsed_s
        times = [time for time, _ in self.changes]
        return self.changes[max(0, bisect_right(times, inside) - 1)][1]

    def next_change(self, elapsed_s: float) -> float | None:
        """How long after the start the next change comes; None: there is none any more."""
        round_s = 0.0
        if math.isfinite(self.repeat_s):
            round_s = elapsed_s // self.repeat_s * self.repeat_s
        for time, _ in self.changes:
            if round_s + time > elapsed_s:
                return round_s + time
        return round_s + self.repeat_s if math.isfinite(self.repeat_s) else None


def parse_schedule(text: str) -> Schedule:
    """A schedule from its lines; raises `InvalidInput` with the number of the line."""
    changes: list[tuple[float, State]] = []
    repeat_s = math.inf
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        first, _, rest = line.partition(" ")
        try:
            seconds = float(rest if first == "repeat" else first)
            if not 0 <= seconds <= 86_400:
                raise ValueError
            if first == "repeat":
                repeat_s = seconds
                continue
            changes.append((seconds, parse_state(rest)))
        except ValueError:
            raise InvalidInput(
                f"schedule: line {number} is not 'SECONDS LINK' or 'repeat SECONDS'"
            ) from None
        except InvalidInput as error:
            raise InvalidInput(f"schedule: line {number}: {error.message}") from None
    times = [time for time, _ in changes]
    if not times or times[0] != 0 or times != sorted(times) or len(times) > MOST_CHANGES:
        raise InvalidInput("schedule: the first change is at 0 seconds, and later ones come later")
    if changes[0][1].link is None:
        raise InvalidInput("schedule: it starts with a link; a cut needs one to come back to")
    if repeat_s <= times[-1]:
        raise InvalidInput("schedule: it repeats before its last change; repeat later")
    return Schedule(tuple(changes), repeat_s)


def read_schedule(words: str) -> Schedule:
    """``@FILE`` is read as a schedule; anything else is a state that stays."""
    if not words.startswith("@"):
        state = parse_state(words)
        if state.link is None:
            raise InvalidInput("link: it starts as a link, and is cut later", field="link")
        return Schedule(((0.0, state),))
    try:
        return parse_schedule(Path(words[1:]).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"schedule: {words[1:]} cannot be read ({error})") from None
