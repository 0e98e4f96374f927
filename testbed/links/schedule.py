"""A link that changes over time, described by lines of text.

::

    # seconds  link as in `parse_link`, or an outage, as `parse_state` describes
    0     4g
    20    4g,up_mbps=2,loss=0.02
    40    stall
    40.3  wifi
    repeat 60

The rates of a link may follow packet traces (`testbed.links.traces`), whose paths are relative to
the schedule's folder: ``4g,up=uplink.trace,down=downlink.trace``.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from shared.errors import InvalidInput
from shared.link_profiles import Link, parse_link
from shared.user_files import read_text, split_lines
from testbed.links.traces import PacketTrace, read_trace

Outage = Literal["stall", "reset", "reset-after-accept"]
OUTAGES: tuple[Outage, ...] = ("stall", "reset", "reset-after-accept")
MAX_CHANGES = 100_000


@dataclass(frozen=True, slots=True)
class LinkState:
    """The state of a link: its specification as text, and either a link or an outage.

    During an outage ``link`` is None: afterwards the link is the one from before, or a new one.
    Where there is a trace of a direction, the link's rate is the trace's mean.
    """

    spec: str
    link: Link | None = None
    outage: Outage | None = None
    up_trace: PacketTrace | None = None
    down_trace: PacketTrace | None = None


def parse_state(spec: str, folder: Path | None = None) -> LinkState:
    """Parse ``4g``, ``4g,loss=0.01``, ``4g,up=FILE`` or an outage.

    ``stall``: no byte passes. ``reset``: connections break, and new ones are refused.
    ``reset-after-accept``: connections break, and new ones are accepted and reset soon after.

    Traces are read relative to ``folder``. Without it no file is read and a trace is refused, as
    in a request to a running relay. Raises `InvalidInput`.
    """
    spec = spec.strip()
    for outage in OUTAGES:
        if spec == outage:
            return LinkState(spec, outage=outage)
    words, traces = [], {}
    for word in spec.split(","):
        name, _, file = (part.strip() for part in word.partition("="))
        if name not in ("up", "down"):
            words.append(word)
            continue
        if folder is None:
            raise InvalidInput(
                "link: a running link cannot change to a trace; start the testbed with it: "
                f"dimee up --link HOP={spec[:80]}",
                field="link",
            )
        traces[name] = read_trace(folder / file)
    link = parse_link(",".join(words))
    if traces:
        rates = {f"{name}_mbps": trace.mean_mbps for name, trace in traces.items()}
        link = replace(
            link,
            title=f"{link.title}, with a trace",
            up_mbps=rates.get("up_mbps", link.up_mbps),
            down_mbps=rates.get("down_mbps", link.down_mbps),
        )
    return LinkState(spec, link, None, traces.get("up"), traces.get("down"))


@dataclass(frozen=True, slots=True)
class Schedule:
    """States by the second at which they begin; after ``repeat_s`` the schedule starts again."""

    changes: tuple[tuple[float, LinkState], ...]
    repeat_s: float = math.inf

    def state_at(self, elapsed_s: float) -> LinkState:
        """Return the state ``elapsed_s`` after the start."""
        inside = elapsed_s % self.repeat_s if math.isfinite(self.repeat_s) else elapsed_s
        times = [time for time, _ in self.changes]
        return self.changes[max(0, bisect_right(times, inside) - 1)][1]

    def next_change(self, elapsed_s: float) -> float | None:
        """Return the second of the first change after ``elapsed_s``, or None after the last."""
        round_s = 0.0
        if math.isfinite(self.repeat_s):
            round_s = elapsed_s // self.repeat_s * self.repeat_s
        for time, _ in self.changes:
            if round_s + time > elapsed_s:
                return round_s + time
        return round_s + self.repeat_s if math.isfinite(self.repeat_s) else None


def parse_schedule(text: str, folder: Path | None = None) -> Schedule:
    """Parse the lines of a schedule; raises `InvalidInput` with the number of the wrong line.

    ``folder`` is that of its traces, as in `parse_state`.
    """
    changes: list[tuple[float, LinkState]] = []
    repeat_s = math.inf
    for number, raw in enumerate(split_lines(text), start=1):
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
            changes.append((seconds, parse_state(rest, folder)))
        except ValueError:
            raise InvalidInput(
                f"schedule: line {number} is not 'SECONDS LINK' or 'repeat SECONDS'"
            ) from None
        except InvalidInput as error:
            raise InvalidInput(f"schedule: line {number}: {error.message}") from None
    times = [time for time, _ in changes]
    if not times or times[0] != 0 or times != sorted(times) or len(times) > MAX_CHANGES:
        raise InvalidInput("schedule: begin with a line for second 0 and sort the lines by time")
    if changes[0][1].link is None:
        raise InvalidInput("schedule: the first line is an outage; begin with a link")
    if repeat_s <= times[-1]:
        raise InvalidInput("schedule: it repeats before its last change; use a later 'repeat'")
    return Schedule(tuple(changes), repeat_s)


def read_schedule(spec: str) -> Schedule:
    """Return the schedule in ``@FILE``, or one with the single state that ``spec`` describes."""
    if not spec.startswith("@"):
        state = parse_state(spec, Path())
        if state.link is None:
            raise InvalidInput(
                "link: it cannot start with an outage; start with a link and change it later",
                field="link",
            )
        return Schedule(((0.0, state),))
    path = Path(spec[1:])
    return parse_schedule(read_schedule_file(path), path.parent)


def read_schedule_file(path: Path) -> str:
    """Return the text of a schedule file; raises `InvalidInput` where it cannot be read."""
    return read_text(path, "schedule")
