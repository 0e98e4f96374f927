"""An HTTP client that costs little: on the server's own cores a heavier one would be measured.

Latency counts from the intended send time, and nothing is skipped; what this process sends late,
also for want of a free connection, is said.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

MakeBody = Callable[[int], bytes]
T = TypeVar("T")
MOST_CONNECTIONS = 4_000
AT_FIRST = 500
"""Connections that stand before the first request, at most."""
TICK_S = 0.001
_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


@dataclass
class Tally:
    """What came back: seconds of each answer by its status; status 0 is none at all."""

    by_status: dict[int, list[float]] = field(default_factory=dict)
    late_s: list[float] = field(default_factory=list)
    connections: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0

    def add(self, status: int, took_s: float) -> None:
        """Count one request."""
        self.by_status.setdefault(status, []).append(took_s)

    def count(self, status: int) -> int:
        """How many ended with this status."""
        return len(self.by_status.get(status, ()))

    @property
    def total(self) -> int:
        """How many were sent, or could not be."""
        return sum(map(len, self.by_status.values()))

    def ms(self, status: int, percent: float) -> float | None:
        """A percentile in milliseconds; None where there were none."""
        return _percentile_ms(self.by_status.get(status, []), percent)

    def late_ms(self, percent: float) -> float | None:
        """A percentile of this process's own lateness; None where it sends when it can."""
        return _percentile_ms(self.late_s, percent)


class Connection(asyncio.Protocol):
    """One kept connection; asks one thing at a time and reads answers with a length."""

    def __init__(self, ended: Callable[[Connection, int], None]) -> None:
        self._ended = ended
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._waits = False
        self.meant = 0.0
        """When the request that is under way should have been sent."""
        self.lost = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep the way out."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Finish the answer when all of it is there."""
        if self._buffer:
            data = self._buffer + data
        end = data.find(_END)
        at = data.find(_LENGTH, 0, end) + len(_LENGTH)
        if end < 0 or len(data) < end + 4 + int(data[at : data.find(b"\r", at)]):
            self._buffer = data
            return
        self._buffer = b""
        self._end(int(data[9:12]))

    def connection_lost(self, _error: Exception | None) -> None:
        """Whoever waits gets 0."""
        self.lost = True
        self._end(0)

    def ask(self, request: bytes, meant: float) -> None:
        """Send; ``ended`` is called with the status, 0 if the connection breaks."""
        assert self._transport is not None
        self._waits, self.meant = True, meant
        self._transport.write(request)

    def give_up(self) -> None:
        """Wait no longer."""
        self.close()
        self._end(0)

    def close(self) -> None:
        """Close the connection."""
        self.lost = True
        if self._transport is not None:
            self._transport.abort()

    def _end(self, status: int) -> None:
        if self._waits:
            self._waits = False
            self._ended(self, status)


class _Requests:
    """Whole requests; heads of the same length are made once."""

    def __init__(self, path: bytes, body: MakeBody) -> None:
        self._path = path
        self._body = body
        self._heads: dict[int, bytes] = {}

    def __call__(self, number: int) -> bytes:
        body = self._body(number)
        head = self._heads.get(len(body))
        if head is None:
            head = self._heads[len(body)] = (
                b"POST %s HTTP/1.1\r\nhost: chaos\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n" % (self._path, len(body))
            )
        return head + body


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run in the loop that costs least."""
    import uvloop

    return uvloop.run(main)


async def connect(port: int, ended: Callable[[Connection, int], None]) -> Connection:
    """A connection to ``port`` on loopback."""
    loop = asyncio.get_running_loop()
    _, made = await loop.create_connection(lambda: Connection(ended), "127.0.0.1", port)
    return made


async def closed_loop(
    port: int, path: bytes, body: MakeBody, workers: int, seconds: float
) -> Tally:
    """``workers`` connections, each asking again as soon as it has its answer."""
    tally, requests = Tally(connections=workers), _Requests(path, body)
    done, ended_workers, number = asyncio.Event(), 0, 0

    def again(connection: Connection, status: int) -> None:
        nonlocal ended_workers, number
        now = time.perf_counter()
        tally.add(status, now - connection.meant)
        if now < until and not connection.lost:
            connection.ask(requests(number), now)
            number += 1
            return
        ended_workers += 1
        if ended_workers == workers:
            done.set()

    opened = [await connect(port, again) for _ in range(workers)]
    started, cpu = time.perf_counter(), time.process_time()
    until = started + seconds
    for connection in opened:
        connection.ask(requests(number), time.perf_counter())
        number += 1
    await done.wait()
    tally.seconds, tally.cpu_s = time.perf_counter() - started, time.process_time() - cpu
    for connection in opened:
        connection.close()
    return tally


class _OpenLoop:
    """Sends what is due once a millisecond, on whatever connection is free, or a new one."""

    def __init__(self, port: int, requests: _Requests, times: Sequence[float], patience_s: float):
        self._port = port
        self._requests = requests
        self._times = times
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._free: list[Connection] = []
        self._asked: deque[tuple[Connection, float]] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._next = 0
        self._started = self._sent_s = self._counted_at = 0.0
        self._done = asyncio.Event()
        self.opened: list[Connection] = []
        self.tally = Tally()

    async def run(self) -> float:
        """Send everything and wait for all answers; the seconds until the last was sent."""
        per_s = len(self._times) / self._times[-1]
        for _ in range(min(AT_FIRST, int(0.1 * per_s) + 10)):
            await self._open()
        self._started = time.perf_counter() + 0.05
        self._loop.call_soon(self._tick)
        await self._done.wait()
        return self._sent_s

    def _tick(self) -> None:
        now = time.perf_counter()
        while self._asked and self._asked[0][1] + self._patience_s < now:
            connection, meant = self._asked.popleft()
            if connection.meant == meant:
                connection.give_up()
        times, end = self._times, len(self._times)
        due = now - self._started
        while self._next < end and times[self._next] <= due:
            if not self._send():
                break
        if self._next == end and self.tally.total == end:
            self._done.set()
            return
        self._loop.call_later(TICK_S, self._tick)

    def _send(self) -> bool:
        """Send the next, or give it up; False where it has to wait for a connection."""
        meant = self._started + self._times[self._next]
        now = time.perf_counter()
        while self._free:
            connection = self._free.pop()
            if not connection.lost:
                connection.ask(self._requests(self._next), meant)
                self._asked.append((connection, meant))
                break
        else:
            if now < meant + self._patience_s:
                self._want_connections(now)
                return False
            self.tally.add(0, now - meant)
        self.tally.late_s.append(now - meant)
        self._next += 1
        self._sent_s = now - self._started
        return True

    def _ended(self, connection: Connection, status: int) -> None:
        self.tally.add(status, time.perf_counter() - connection.meant)
        connection.meant = 0.0
        if not connection.lost:
            self._free.append(connection)

    def _want_connections(self, now: float) -> None:
        if now > self._counted_at + 0.05:
            self._counted_at = now
            self.opened = [one for one in self.opened if not one.lost]
        waiting = int(np.searchsorted(self._times, now - self._started)) - self._next
        more = min(waiting, MOST_CONNECTIONS - len(self.opened), 100) - len(self._opening)
        for _ in range(more):
            task = self._loop.create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        try:
            connection = await connect(self._port, self._ended)
        except OSError:
            return  # what waits for it is sent later, or counted as not answered
        self.opened.append(connection)
        self._free.append(connection)
        self.tally.connections += 1


async def open_loop(
    port: int, path: bytes, body: MakeBody, times: Sequence[float], patience_s: float
) -> Tally:
    """Send at ``times``, in seconds from the start, whatever was answered; skip nothing.

    What has no answer ``patience_s`` after its time is given up, with status 0.
    """
    sending = _OpenLoop(port, _Requests(path, body), times, patience_s)
    tally, cpu = sending.tally, time.process_time()
    with _no_collections():
        sent_s = await sending.run()
    tally.seconds, tally.cpu_s = max(sent_s, times[-1]), time.process_time() - cpu
    for connection in sending.opened:
        connection.close()
    return tally


@contextmanager
def _no_collections() -> Iterator[None]:
    """A collection in the middle would be this process's own lateness."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _percentile_ms(found_s: list[float], percent: float) -> float | None:
    return round(1e3 * float(np.percentile(found_s, percent)), 2) if found_s else None
