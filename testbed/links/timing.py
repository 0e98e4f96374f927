"""Delivery times of bytes on an emulated link. Pure arithmetic: the caller passes the time.

All times are seconds of one monotonic clock.
"""

from __future__ import annotations

import random

from shared.link_profiles import Link
from testbed.links.traces import PAYLOAD_BYTES, PacketTrace, TraceBucket

SEGMENT_BYTES = PAYLOAD_BYTES
"""Payload of a TCP segment on Ethernet."""
MIN_RTO_S = 0.2
"""Shortest retransmission timeout of Linux; RFC 6298 specifies one second."""
MAX_RTO_DOUBLINGS = 5
CHUNK_S = 0.002
"""Transmission time of a chunk on a fast link; a chunk larger than a segment saves CPU time."""
MAX_CHUNK_BYTES = 65_536
QUEUE_S = 0.1
"""Size of the queue in front of a link, as time at the link's rate. When it is full the relay stops
reading, and the sender's own TCP queues the rest."""


class TokenBucket:
    """A rate that all connections of one direction share; a token is a byte.

    ``depth`` bytes may pass at once after a pause; with 0 each chunk takes the time of its bytes.
    """

    def __init__(self, mbps: float, depth: float = 0.0) -> None:
        self._bytes_per_s = mbps * 1e6 / 8
        self._depth_s = depth / self._bytes_per_s
        self._empty_until = 0.0

    def take(self, now: float, size: int) -> float:
        """Take ``size`` tokens and return when the last of these bytes has passed."""
        start = max(self._empty_until, now - self._depth_s)
        self._empty_until = start + size / self._bytes_per_s
        return max(now, self._empty_until)


class LinkDirection:
    """One direction of a link; all its connections share the rate and the random numbers.

    ``overhead_ms`` is the time that the relay itself adds to this direction; it is subtracted from
    the delay.
    """

    def __init__(self, link: Link, up: bool, seed: int, overhead_ms: float = 0.0) -> None:
        self._up = up
        self._random = random.Random(f"{seed}:{up}")
        self.retransmissions = 0
        self.change(link, overhead_ms)

    def change(
        self,
        link: Link,
        overhead_ms: float = 0.0,
        trace: PacketTrace | None = None,
        started: float = 0.0,
    ) -> None:
        """Use another link for all bytes that are sent from now on.

        A ``trace`` that starts at the time ``started`` replaces the link's constant rate, which is
        then its mean.
        """
        self.mbps = link.up_mbps if self._up else link.down_mbps
        self._bucket = TokenBucket(self.mbps) if trace is None else TraceBucket(trace, started)
        self._delay_s = max(0.0, link.one_way_ms - overhead_ms) / 1e3
        self._jitter_s = min(link.jitter_ms, link.one_way_ms) / 1e3
        self._loss = link.loss
        self._rto_s = max(MIN_RTO_S, (link.round_trip_ms + 4 * link.jitter_ms) / 1e3)
        self.round_trip_s = link.round_trip_ms / 1e3
        bytes_per_s = self.mbps * 1e6 / 8
        largest = MAX_CHUNK_BYTES if trace is None else SEGMENT_BYTES
        self.chunk_bytes = int(max(SEGMENT_BYTES, min(bytes_per_s * CHUNK_S, largest)))
        # Bytes that are in flight at the full rate must not pause the source.
        in_flight = 65_536 + bytes_per_s * (self._delay_s + self._jitter_s)
        self.pause_above_bytes = int(min(in_flight + bytes_per_s * QUEUE_S, 64 * 2**20))
        self.resume_below_bytes = int(min(in_flight + bytes_per_s * QUEUE_S / 2, 48 * 2**20))

    def delivery_time(self, now: float, size: int) -> float:
        """Return when a chunk that is sent now is delivered, regardless of earlier chunks."""
        jitter_s = self._random.uniform(-self._jitter_s, self._jitter_s) if self._jitter_s else 0.0
        sent = self._bucket.take(now, size)
        return sent + self._delay_s + jitter_s + self._retransmission_s(size)

    def _retransmission_s(self, size: int) -> float:
        """Return the extra delay of a lost segment: a retransmission timeout that doubles."""
        if not self._loss:
            return 0.0
        segments = max(1, -(-size // SEGMENT_BYTES))
        if self._random.random() >= 1 - (1 - self._loss) ** segments:
            return 0.0
        self.retransmissions += 1
        doublings = 1
        while doublings < MAX_RTO_DOUBLINGS and self._random.random() < self._loss:
            doublings += 1
        return float(self._rto_s * (2**doublings - 1))


class InOrderDelivery:
    """Delivery times of one connection in one direction: a chunk never overtakes an earlier one.

    Bytes that are sent before ``opens_at``, when a real connection would be established, count as
    sent at that time.
    """

    def __init__(self, direction: LinkDirection, opens_at: float = 0.0) -> None:
        self._direction = direction
        self._opens_at = opens_at
        self._last = 0.0

    def delivery_time(self, now: float, size: int) -> float:
        """Return when a chunk that is sent now is delivered."""
        sent = max(now, self._opens_at)
        self._last = max(self._last, self._direction.delivery_time(sent, size))
        return self._last
