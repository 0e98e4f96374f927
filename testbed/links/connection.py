"""One connection through the link: bytes wait in a queue until their delivery time.

Reading never waits for a delivery, so that a long delay does not lower the rate.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from testbed.links.timing import InOrderDelivery, LinkDirection

Address = tuple[str, int]
_END = b""


class ConnectionOwner(Protocol):
    """The part of a relay that its connections use."""

    @property
    def stalled(self) -> bool:
        """True while no byte may pass."""

    def connection_opened(self, connection: RelayedConnection) -> None:
        """Register a connection that a caller has opened."""

    def connection_closed(self, connection: RelayedConnection) -> None:
        """Remove a connection."""

    def target_lost(self, target: Address) -> None:
        """React to a target that refused or ended a connection."""


class DirectedStream:
    """One direction of one connection, from ``source`` to ``sink``."""

    def __init__(
        self,
        owner: ConnectionOwner,
        direction: LinkDirection,
        opens_at: float,
        finished: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._direction = direction
        self._finished = finished
        self._delivery = InOrderDelivery(direction, opens_at)
        self._queue: deque[tuple[float, bytes]] = deque()
        self.queued_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._sink_full = False
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        self.ended = False
        self.passed_bytes = 0

    def receive(self, data: bytes) -> None:
        """Queue bytes from the source."""
        now, size = self._loop.time(), self._direction.chunk_bytes
        for start in range(0, len(data), size):
            chunk = data[start : start + size]
            self._queue.append((self._delivery.delivery_time(now, len(chunk)), chunk))
        self.queued_bytes += len(data)
        if self.queued_bytes > self._direction.pause_above_bytes and self.source is not None:
            self.source.pause_reading()
        self.deliver()

    def receive_end(self) -> None:
        """Queue the end of the stream, which takes as long as a byte to arrive."""
        self._queue.append((self._delivery.delivery_time(self._loop.time(), 1), _END))
        self.deliver()

    def set_sink_full(self, full: bool) -> None:
        """Pause or resume delivery because the sink's buffer is full or empty again."""
        self._sink_full = full
        self.deliver()

    def deliver(self) -> None:
        """Write what is due to the sink, and set a timer for the next chunk."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sink = self.sink
        if sink is None or sink.is_closing() or self._sink_full or self._owner.stalled:
            return
        now = self._loop.time()
        due: list[bytes] = []
        while self._queue and self._queue[0][0] <= now:
            chunk = self._queue.popleft()[1]
            if chunk is _END:
                self._write(sink, due)
                self._end(sink)
                return
            due.append(chunk)
        self._write(sink, due)
        if self._queue and not self._sink_full and not sink.is_closing():
            self._timer = self._loop.call_at(self._queue[0][0], self.deliver)

    def _write(self, sink: asyncio.Transport, due: list[bytes]) -> None:
        if not due:
            return
        data = b"".join(due)
        self.queued_bytes -= len(data)
        self.passed_bytes += len(data)
        has_room = self.queued_bytes <= self._direction.resume_below_bytes
        if has_room and self.source is not None and not self.source.is_closing():
            self.source.resume_reading()
        sink.write(data)

    def _end(self, sink: asyncio.Transport) -> None:
        self.ended = True
        if sink.can_write_eof():
            with suppress(OSError):  # the peer has reset the connection in the meantime
                sink.write_eof()
        self._finished()

    def stop(self) -> None:
        """Drop what is queued."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class RelayedConnection:
    """Both directions of one connection, until both have ended or one breaks."""

    def __init__(
        self,
        owner: ConnectionOwner,
        target: Address,
        directions: tuple[LinkDirection, LinkDirection],
    ) -> None:
        up, down = directions
        now = asyncio.get_running_loop().time()
        self._owner = owner
        self.target = target
        # On a real link the handshake (SYN, SYN-ACK) would have taken a round trip.
        self.up = DirectedStream(owner, up, now + up.round_trip_s, self._finished)
        self.down = DirectedStream(owner, down, now, self._finished)
        self.caller_side = Endpoint(self.up, self.down, self._accepted, self.close)
        self._target_side = Endpoint(
            self.down, self.up, lambda: None, self.close, self._target_ended
        )
        self._connecting: asyncio.Task[None] | None = None

    def _accepted(self) -> None:
        self._owner.connection_opened(self)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self._target_side, *self.target)
        except OSError:
            self._target_ended()
            self.close(broken=True)

    def _target_ended(self) -> None:
        self._owner.target_lost(self.target)

    def _finished(self) -> None:
        if self.up.ended and self.down.ended:
            self.close()

    def close(self, broken: bool = False) -> None:
        """Close both sides; ``broken`` sends a TCP reset, as when a peer has crashed."""
        self._owner.connection_closed(self)
        if self._connecting is not None and not self._connecting.done():
            self._connecting.cancel()
        for stream in (self.up, self.down):
            stream.stop()
            transport = stream.sink
            if transport is not None and not transport.is_closing():
                if broken:
                    reset(transport)
                else:
                    transport.close()

    def deliver(self) -> None:
        """Deliver what is due in both directions, after the link has changed."""
        self.up.deliver()
        self.down.deliver()


class Endpoint(asyncio.Protocol):
    """One side of a connection: it reads into ``outgoing`` and writes from ``incoming``."""

    def __init__(
        self,
        outgoing: DirectedStream,
        incoming: DirectedStream,
        on_connected: Callable[[], None],
        close: Callable[[bool], None],
        on_ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._on_connected = on_connected
        self._close = close
        self._on_ended = on_ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._outgoing.source = self._incoming.sink = transport
        self._on_connected()
        self._incoming.deliver()

    def data_received(self, data: bytes) -> None:
        self._outgoing.receive(data)

    def eof_received(self) -> bool:
        self._on_ended()
        self._outgoing.receive_end()
        return True

    def pause_writing(self) -> None:
        self._incoming.set_sink_full(True)

    def resume_writing(self) -> None:
        self._incoming.set_sink_full(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._incoming.sink = self._outgoing.source = None
        if exc is not None:
            self._on_ended()
        self._close(exc is not None)


def reset(transport: asyncio.Transport) -> None:
    """Close a connection with a TCP reset, which the peer notices at once."""
    sock: socket.socket = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
