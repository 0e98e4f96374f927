"""Packet traces of a link's rate, in the format of Mahimahi (Netravali et al. 2015).

Each line is a whole number of milliseconds since the start: the time of one opportunity to deliver
a packet of 1,500 bytes. A line that is repeated is one more packet at that time. After its last
line the trace starts again. An opportunity at which nothing waits is lost, and packets that
together fit into one opportunity share it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

from shared.errors import InvalidInput
from shared.user_files import read_text, split_lines

PAYLOAD_BYTES = 1448
"""Payload of a packet of 1,500 bytes: without the headers of IPv4 and TCP and its timestamps. The
relay sees payloads only."""
MAX_PACKETS = 5_000_000


@dataclass(frozen=True, slots=True)
class PacketTrace:
    """Delivery opportunities by the millisecond at which they come, sorted."""

    times_ms: array[int]

    @property
    def period_ms(self) -> int:
        """Milliseconds after which the trace starts again."""
        return self.times_ms[-1]

    @property
    def mean_mbps(self) -> float:
        """Mean rate in megabits of payload a second."""
        return 8e-3 * PAYLOAD_BYTES * len(self.times_ms) / self.period_ms

    def time_s(self, number: int) -> float:
        """Return the second of an opportunity, counted from 0 through all rounds of the trace."""
        rounds, index = divmod(number, len(self.times_ms))
        return (rounds * self.period_ms + self.times_ms[index]) / 1e3

    def first_after(self, elapsed_s: float) -> int:
        """Return the number of the first opportunity that is not before ``elapsed_s``."""
        rounds, inside_ms = divmod(max(0.0, elapsed_s * 1e3), self.period_ms)
        if inside_ms < 1e-6 and rounds:  # the last opportunities of the round before are due now
            rounds, inside_ms = rounds - 1, float(self.period_ms)
        # rounding must not skip the opportunity at exactly this time
        return int(rounds) * len(self.times_ms) + bisect_left(self.times_ms, inside_ms - 1e-6)


class TraceBucket:
    """The opportunities of a trace that starts at ``started``, shared by all connections."""

    def __init__(self, trace: PacketTrace, started: float) -> None:
        self._trace = trace
        self._started = started
        self._next = 0
        self._left_bytes = PAYLOAD_BYTES

    def take(self, now: float, size: int) -> float:
        """Take ``size`` bytes and return when the last of them has passed."""
        first = self._trace.first_after(now - self._started)
        if first > self._next:
            self._next, self._left_bytes = first, PAYLOAD_BYTES
        beyond = max(0, size - self._left_bytes)
        more = -(-beyond // PAYLOAD_BYTES)
        last = self._next + more
        self._left_bytes += more * PAYLOAD_BYTES - size
        self._next = last
        if not self._left_bytes:
            self._next, self._left_bytes = last + 1, PAYLOAD_BYTES
        return max(now, self._started + self._trace.time_s(last))


def read_trace(path: Path) -> PacketTrace:
    """Read a trace; raises `InvalidInput` that names the wrong line."""
    lines = split_lines(read_text(path, "trace"))
    if len(lines) > MAX_PACKETS:
        raise InvalidInput(f"trace: {path} has more than {MAX_PACKETS:,} lines", limit=MAX_PACKETS)
    times_ms = array("q")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        time_ms = int(line) if line.strip().isdecimal() and len(line) < 16 else -1
        if time_ms < (times_ms[-1] if times_ms else 0):
            raise InvalidInput(
                f"trace: line {number} of {path} is not a whole number of milliseconds, at least "
                "that of the line before"
            )
        times_ms.append(time_ms)
    if not times_ms or times_ms[-1] == 0:
        raise InvalidInput(f"trace: {path} is empty, or has no line above 0 ms")
    return PacketTrace(times_ms)
