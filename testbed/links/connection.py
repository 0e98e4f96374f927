"""One connection through the link: bytes wait in a queue with the time they come out.

Reading never sleeps, so that a long delay does not slow the rate down.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from testbed.links.timing import InOrder, Way

if TYPE_CHECKING:
    from testbed.links.relay import Relay

_END = b""


class Pump:
    """One direction of one connection, from the ``source`` to the ``sink``."""

    def __init__(self, relay: Relay, way: Way, opens: float, finished: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._relay = relay
        self._way = way
        self._finished = finished
        self._order = InOrder(way, opens)
        self._queue: deque[tuple[float, bytes]] = deque()
        self._queued_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._sink_full = False
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None
        self.ended = False
        self.passed_bytes = 0

    def take(self, data: bytes) -> None:
        """Queue what was read."""
        now, size = self._loop.time(), self._way.piece_bytes
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            self._queue.append((self._order.arrives(now, len(piece)), piece))
        self._queued_bytes += len(data)
        if self._queued_bytes > self._way.most_queued_bytes and self.source is not None:
            self.source.pause_reading()
        self.wake()

    def take_end(self) -> None:
        """Queue the end of the stream: it crosses the link like a byte."""
        self._queue.append((self._order.arrives(self._loop.time(), 1), _END))
        self.wake()

    def sink_is_full(self, full: bool) -> None:
        """The far side takes no more for now, or again."""
        self._sink_full = full
        self.wake()

    def wake(self) -> None:
        """Pass on what is due, and set the clock for what comes next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sink = self.sink
        if sink is None or sink.is_closing() or self._sink_full or self._relay.cut:
            return
        now = self._loop.time()
        due: list[bytes] = []
        while self._queue and self._queue[0][0] <= now:
            piece = self._queue.popleft()[1]
            if piece is _END:
                self._write(sink, due)
                self._end(sink)
                return
            due.append(piece)
        self._write(sink, due)
        if self._queue and not self._sink_full and not sink.is_closing():
            self._timer = self._loop.call_at(self._queue[0][0], self.wake)

    def _write(self, sink: asyncio.Transport, due: list[bytes]) -> None:
        if not due:
            return
        data = b"".join(due)
        self._queued_bytes -= len(data)
        self.passed_bytes += len(data)
        room = self._queued_bytes <= self._way.few_queued_bytes
        if room and self.source is not None and not self.source.is_closing():
            self.source.resume_reading()
        sink.write(data)

    def _end(self, sink: asyncio.Transport) -> None:
        self.ended = True
        if sink.can_write_eof():
            with suppress(OSError):  # the peer reset it meanwhile; nobody is left to be told
                sink.write_eof()
        self._finished()

    def stop(self) -> None:
        """Forget what is queued."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Pipe:
    """Both directions of one connection, from its acceptance until both sides have ended."""

    def __init__(self, relay: Relay, target: tuple[str, int], ways: tuple[Way, Way]) -> None:
        up, down = ways
        now = asyncio.get_running_loop().time()
        self._relay = relay
        self.target = target
        # SYN, SYN and ACK: a real link would have taken a round trip to connect
        self.up = Pump(relay, up, now + up.round_trip_s, self._finished)
        self.down = Pump(relay, down, now, self._finished)
        self.near = Side(self, self.up, self.down)
        self.far = Side(self, self.down, self.up)
        self._connecting: asyncio.Task[None] | None = None

    def accepted(self) -> None:
        """The near side is there: connect the far one."""
        self._relay.pipes.add(self)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: self.far, *self.target)
        except OSError:
            self._relay.look_after(self.target)
            self.close(broken=True)

    def far_ended(self) -> None:
        """The target has closed its end: is it still there?"""
        self._relay.look_after(self.target)

    def _finished(self) -> None:
        if self.up.ended and self.down.ended:
            self.close()

    def close(self, broken: bool = False) -> None:
        """Close both sides; ``broken`` resets them, as a peer that is gone would."""
        self._relay.pipes.discard(self)
        self._relay.count(self)
        if self._connecting is not None and not self._connecting.done():
            self._connecting.cancel()
        for pump in (self.up, self.down):
            pump.stop()
            transport = pump.sink
            if transport is not None and not transport.is_closing():
                if broken:
                    reset(transport)
                else:
                    transport.close()

    def wake(self) -> None:
        """The link has changed: look again at what is due."""
        self.up.wake()
        self.down.wake()


class Side(asyncio.Protocol):
    """One end of a pipe: reads into ``out``, is written to by ``back``."""

    def __init__(self, pipe: Pipe, out: Pump, back: Pump) -> None:
        self._pipe = pipe
        self._out = out
        self._back = back

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._out.source = self._back.sink = transport
        if self is self._pipe.near:
            self._pipe.accepted()
        self._back.wake()

    def data_received(self, data: bytes) -> None:
        self._out.take(data)

    def eof_received(self) -> bool:
        if self is self._pipe.far:
            self._pipe.far_ended()
        self._out.take_end()
        return True

    def pause_writing(self) -> None:
        self._back.sink_is_full(True)

    def resume_writing(self) -> None:
        self._back.sink_is_full(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._back.sink = self._out.source = None
        if self is self._pipe.far and exc is not None:
            self._pipe.far_ended()
        self._pipe.close(broken=exc is not None)


def reset(transport: asyncio.Transport) -> None:
    """Break a connection so that the peer is told at once (RST)."""
    one: socket.socket = transport.get_extra_info("socket")
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
