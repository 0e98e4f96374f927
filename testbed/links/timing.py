"""When a piece of bytes comes out of a link: pure arithmetic over a clock that the caller reads.

All times are seconds of one monotonic clock.
"""

from __future__ import annotations

import random

from shared.link_profiles import Link

SEGMENT_BYTES = 1448
"""What a TCP segment carries on Ethernet (1500 bytes less IPv4, TCP and its timestamps)."""
LEAST_RTO_S = 0.2
"""The shortest retransmission timeout of Linux; RFC 6298 would have a second."""
MOST_RTO_DOUBLINGS = 5
PIECE_S = 0.002
"""A fast link sends larger pieces than a segment, up to this long, so that it costs less work."""
MOST_PIECE_BYTES = 65_536
QUEUE_S = 0.1
"""What the queue before a link holds at its rate: more is left to the sender's own transport."""


class TokenBucket:
    """A rate that all connections of one direction share: tokens are bytes.

    ``depth`` bytes may pass at once after a pause; 0: each piece takes the time of its bytes.
    """

    def __init__(self, mbps: float, depth: float = 0.0) -> None:
        self._bytes_a_second = mbps * 1e6 / 8
        self._depth_s = depth / self._bytes_a_second
        self._empty_until = 0.0

    def passes(self, now: float, size: int) -> float:
        """Take ``size`` tokens, and say when the last of these bytes has passed."""
        begun = max(self._empty_until, now - self._depth_s)
        self._empty_until = begun + size / self._bytes_a_second
        return max(now, self._empty_until)


class Way:
    """One direction of a link: its bucket and its dice, shared by all connections."""

    def __init__(self, link: Link, up: bool, seed: int, trim_ms: float = 0.0) -> None:
        self._up = up
        self._dice = random.Random(f"{seed}:{up}")
        self.stalls = 0
        self.change(link, trim_ms)

    def change(self, link: Link, trim_ms: float = 0.0) -> None:
        """Take another link for what comes from now on.

        ``trim_ms`` is what the relay itself adds to a way; it is taken off the delay.
        """
        self.mbps = link.up_mbps if self._up else link.down_mbps
        self._bucket = TokenBucket(self.mbps)
        self._delay_s = max(0.0, link.one_way_ms - trim_ms) / 1e3
        self._jitter_s = min(link.jitter_ms, link.one_way_ms) / 1e3
        self._loss = link.loss
        self._rto_s = max(LEAST_RTO_S, (link.round_trip_ms + 4 * link.jitter_ms) / 1e3)
        self.round_trip_s = link.round_trip_ms / 1e3
        bytes_a_second = self.mbps * 1e6 / 8
        wanted = min(bytes_a_second * PIECE_S, MOST_PIECE_BYTES)
        self.piece_bytes = int(max(SEGMENT_BYTES, wanted))
        # what is under way at the full rate never keeps the source waiting
        flight = 65_536 + bytes_a_second * (self._delay_s + self._jitter_s)
        self.most_queued_bytes = int(min(flight + bytes_a_second * QUEUE_S, 64 * 2**20))
        self.few_queued_bytes = int(min(flight + bytes_a_second * QUEUE_S / 2, 48 * 2**20))

    def arrives(self, now: float, size: int) -> float:
        """When a piece that is sent now comes out, if nothing before it is late."""
        jitter_s = self._dice.uniform(-self._jitter_s, self._jitter_s) if self._jitter_s else 0.0
        sent = self._bucket.passes(now, size)
        return sent + self._delay_s + jitter_s + self._stall_s(size)

    def _stall_s(self, size: int) -> float:
        """A transport feels a lost segment as a stall of a retransmission timeout, doubling."""
        if not self._loss:
            return 0.0
        segments = max(1, -(-size // SEGMENT_BYTES))
        if self._dice.random() >= 1 - (1 - self._loss) ** segments:
            return 0.0
        self.stalls += 1
        doublings = 1
        while doublings < MOST_RTO_DOUBLINGS and self._dice.random() < self._loss:
            doublings += 1
        return float(self._rto_s * (2**doublings - 1))


class InOrder:
    """One connection's direction: bytes never overtake, whatever jitter and stalls say."""

    def __init__(self, way: Way, opens: float = 0.0) -> None:
        self._way = way
        self._opens = opens
        self._last = 0.0

    def arrives(self, now: float, size: int) -> float:
        """When a piece that is sent now comes out; not before the connection ``opens``."""
        self._last = max(self._last, self._way.arrives(max(now, self._opens), size))
        return self._last
