"""An HTTP client that costs little: on the server's own cores a heavier one would be measured.

Latency counts from the intended send time; what this process sends late is said.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

MakeBody = Callable[[int], bytes]
MOST_CONNECTIONS = 4_000


@dataclass
class Tally:
    """What came back: seconds of each answer by its status; status 0 is none at all."""

    by_status: dict[int, list[float]] = field(default_factory=dict)
    late_s: list[float] = field(default_factory=list)
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
        """How many were sent."""
        return sum(map(len, self.by_status.values()))

    def ms(self, status: int, percent: float) -> float | None:
        """A percentile in milliseconds; None where there were none."""
        found = self.by_status.get(status)
        return round(1e3 * float(np.percentile(found, percent)), 2) if found else None


class Connection(asyncio.Protocol):
    """One kept connection; asks one thing at a time and reads answers with a length."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Finish the answer when all of it is there."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        start = head.find(b"content-length:") + 15
        length = int(head[start:].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + length:
            return
        self._buffer = b""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(int(head[9:12]))

    def connection_lost(self, _error: Exception | None) -> None:
        """Whoever waits gets 0."""
        self.lost = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(0)

    async def ask(self, path: bytes, body: bytes) -> int:
        """Post and return the status; 0 if the connection broke."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(
            b"POST %s HTTP/1.1\r\nhost: chaos\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % (path, len(body)) + body
        )
        return await self._answer

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


async def connect(port: int) -> Connection:
    """A connection to ``port`` on loopback."""
    _, made = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return made


async def closed_loop(
    port: int, path: bytes, body: MakeBody, workers: int, seconds: float
) -> Tally:
    """``workers`` connections, each asking again as soon as it has its answer."""
    tally, started, cpu = Tally(), time.perf_counter(), time.process_time()
    number = iter(range(10**9))

    async def work() -> None:
        connection = await connect(port)
        while (sent := time.perf_counter()) < started + seconds and not connection.lost:
            status = await connection.ask(path, body(next(number)))
            tally.add(status, time.perf_counter() - sent)
        connection.close()

    await asyncio.gather(*(work() for _ in range(workers)))
    tally.seconds, tally.cpu_s = time.perf_counter() - started, time.process_time() - cpu
    return tally


async def open_loop(
    port: int, path: bytes, body: MakeBody, times: Sequence[float], patience_s: float
) -> Tally:
    """Send at ``times``, in seconds from the start, whatever was answered; skip nothing."""
    tally, free, opened = Tally(), list[Connection](), list[Connection]()
    tasks: set[asyncio.Task[None]] = set()
    gc.freeze()  # a collection in the middle would be this process's own lateness
    started, cpu = time.perf_counter() + 0.05, time.process_time()

    async def one(number: int, meant: float) -> None:
        tally.late_s.append(time.perf_counter() - meant)
        status, connection = 0, None
        try:
            async with asyncio.timeout(patience_s):
                if free:
                    connection = free.pop()
                else:
                    connection = await connect(port)
                    opened.append(connection)
                status = await connection.ask(path, body(number))
        except (TimeoutError, OSError):
            if connection is not None:
                connection.close()
        tally.add(status, time.perf_counter() - meant)
        if connection is not None and status and not connection.lost:
            free.append(connection)

    for number, at in enumerate(times):
        wait_s = started + at - time.perf_counter()
        # also where it is late: answers are read in between
        await asyncio.sleep(max(0.0, wait_s) if wait_s > 5e-4 or number % 8 == 0 else 0)
        task = asyncio.create_task(one(number, started + at))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    sent_s = time.perf_counter() - started
    await asyncio.gather(*tasks)
    gc.unfreeze()
    tally.seconds, tally.cpu_s = max(sent_s, times[-1]), time.process_time() - cpu
    for connection in opened:
        connection.close()
    return tally
