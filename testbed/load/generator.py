"""Load generation: an open loop at given times, and a closed loop of some workers.

A client that waits for the server before it sends again measures the server at its best
(coordinated omission). The open loop does not wait for answers and skips no request; what it sends
late, also for lack of a free connection, is reported and stays in the latency.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable, Sequence

from testbed.load.http_client import Answer, Connection, HttpClient
from testbed.load.tally import Tally

MakeBody = Callable[[int], bytes]
"""Function that returns the body of a request, given its number."""
Receive = Callable[[Answer], None]
MAX_CONNECTIONS = 4_000
MAX_INITIAL_CONNECTIONS = 500
MAX_OPENING = 100
"""Largest number of connections that are being opened at the same time."""
TICK_S = 0.001
PRUNE_S = 0.05
"""Least time between removals of lost connections from the count, since each costs CPU time."""
MAX_WAIT_S = 0.05


class OpenLoop:
    """Sends a request at each of ``times`` (seconds from the start), without waiting for answers.

    A request is sent on a free connection, or on a new one. A request without an answer
    ``timeout_s`` after its intended time is abandoned. Each `Answer` goes to ``receive``.
    """

    def __init__(
        self,
        client: HttpClient,
        body: MakeBody,
        times: Sequence[float],
        timeout_s: float,
        receive: Receive,
    ) -> None:
        self._client = client
        self._body = body
        self._times = times
        self._timeout_s = timeout_s
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._free: list[Connection] = []
        self._pending: deque[tuple[float, Connection, int]] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._open: set[Connection] = set()
        self._next = 0
        self._answered = 0
        self._pruned_at = 0.0
        self._started = float("inf")
        self._done = asyncio.Event()
        self.connections = 0
        self.last_sent_s = 0.0

    async def connect(self) -> None:
        """Open the connections for a tenth of a second of the mean rate."""
        rate = len(self._times) / max(self._times[-1], 1e-3)
        for _ in range(min(MAX_INITIAL_CONNECTIONS, int(0.1 * rate) + 10)):
            await self._connect()

    def start(self) -> float:
        """Start to send; return the time (``time.monotonic``) of second 0.

        Garbage collection is off until `wait` returns: its pauses would make this process late.
        """
        gc.collect()
        gc.disable()
        self._started = time.monotonic() + TICK_S
        self._loop.call_soon(self._tick)
        return self._started

    async def wait(self) -> None:
        """Wait until every request has an answer or is abandoned, and close the connections."""
        try:
            await self._done.wait()
        finally:
            gc.enable()
        for task in self._opening:
            task.cancel()
        for connection in self._open:
            connection.close()

    def _tick(self) -> None:
        now = time.monotonic()
        while self._pending:
            expires, connection, number = self._pending[0]
            if connection.number == number:
                if expires > now:
                    break
                connection.abandon(b"timeout")
            self._pending.popleft()
        blocked = False
        while not blocked and self._next < len(self._times):
            intended = self._started + self._times[self._next]
            if intended > now:
                break
            blocked = not self._send(intended)
        if not self._done.is_set():
            self._loop.call_later(self._wait_s(now, blocked), self._tick)

    def _wait_s(self, now: float, blocked: bool) -> float:
        """Return the time until the next request is due, or the first one expires."""
        if blocked:
            return TICK_S
        wakes = [now + MAX_WAIT_S]
        if self._pending:
            wakes.append(self._pending[0][0])
        if self._next < len(self._times):
            wakes.append(self._started + self._times[self._next])
        return max(TICK_S, min(wakes) - now)

    def _send(self, intended: float) -> bool:
        """Send the next request or abandon it; False if it has to wait for a connection."""
        now = time.monotonic()
        while self._free:
            connection = self._free.pop()
            if not connection.reusable:
                connection.close()
                continue
            request = self._client.request(self._body(self._next))
            connection.send(request, self._next, intended, now)
            self._pending.append((intended + self._timeout_s, connection, self._next))
            self._advance(now)
            return True
        if now < intended + self._timeout_s:
            self._open_connections(now)
            return False
        self._skip(now, "timeout")
        return True

    def _advance(self, now: float) -> None:
        self._next += 1
        self.last_sent_s = now - self._started

    def _skip(self, now: float, error: str) -> None:
        """Count the next request as not sent."""
        waited_s = now - self._started - self._times[self._next]
        number = self._next
        self._advance(now)
        self._count(Answer(number, 0, b"", waited_s, waited_s, error))

    def _count(self, answer: Answer) -> None:
        self._receive(answer)
        self._answered += 1
        if self._answered == len(self._times):
            self._done.set()

    def _finished(self, connection: Connection, status: int, body: bytes) -> None:
        answer = make_answer(connection, status, body)
        connection.number = None
        if connection.lost:
            self._open.discard(connection)
        else:
            self._free.append(connection)
        self._count(answer)

    def _open_connections(self, now: float) -> None:
        if len(self._open) >= MAX_CONNECTIONS and now > self._pruned_at + PRUNE_S:
            self._pruned_at = now
            self._open = {connection for connection in self._open if not connection.lost}
        allowed = min(MAX_CONNECTIONS - len(self._open), MAX_OPENING) - len(self._opening)
        due = self._next
        while due < len(self._times) and due - self._next < len(self._opening) + allowed:
            if self._started + self._times[due] > now:
                break
            due += 1
        for _ in range(due - self._next - len(self._opening)):
            task = self._loop.create_task(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        try:
            connection = await self._client.connect(self._finished)
        except ConnectionRefusedError:
            now = time.monotonic()
            if self._next < len(self._times) and self._started + self._times[self._next] <= now:
                self._skip(now, "connection refused")
            return
        except OSError:
            return  # no descriptor or no port is free; the request waits for another connection
        self._open.add(connection)
        self._free.append(connection)
        self.connections += 1


async def open_loop(
    client: HttpClient, body: MakeBody, times: Sequence[float], timeout_s: float
) -> Tally:
    """Run an `OpenLoop` and return the tally of its answers."""
    tally = Tally(counts_lateness=True)
    loop = OpenLoop(client, body, times, timeout_s, tally.add)
    await loop.connect()
    cpu_s = time.process_time()
    loop.start()
    await loop.wait()
    tally.seconds = max(loop.last_sent_s, times[-1])
    tally.cpu_s = time.process_time() - cpu_s
    tally.connections = loop.connections
    return tally


async def closed_loop(client: HttpClient, body: MakeBody, workers: int, seconds: float) -> Tally:
    """Let ``workers`` connections send again as soon as each has its answer, for some seconds.

    A worker whose connection is lost opens another one.
    """
    tally = Tally(connections=workers)
    started, cpu_s, number = time.monotonic(), time.process_time(), 0

    async def work() -> None:
        nonlocal number
        answers = _AwaitingConnection(client)
        while time.monotonic() < started + seconds:
            number += 1
            tally.add(await answers.send(body(number - 1), number - 1))
        answers.close()

    await asyncio.gather(*(work() for _ in range(workers)))
    tally.seconds, tally.cpu_s = time.monotonic() - started, time.process_time() - cpu_s
    return tally


async def send_in_turn(
    client: HttpClient, bodies: Sequence[bytes], timeout_s: float = 30.0
) -> list[Answer]:
    """Send each body when the one before it was answered; raises `TimeoutError`."""
    connection, answers = _AwaitingConnection(client), []
    for number, body in enumerate(bodies):
        async with asyncio.timeout(timeout_s):
            answers.append(await connection.send(body, number))
    connection.close()
    return answers


class _AwaitingConnection:
    """Connection that sends one request at a time and waits for its answer."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._connection: Connection | None = None
        self._answer: asyncio.Future[Answer] | None = None

    async def send(self, body: bytes, number: int) -> Answer:
        """Send a request and wait for its answer."""
        intended = time.monotonic()
        if self._connection is None or not self._connection.reusable:
            self.close()
            try:
                self._connection = await self._client.connect(self._finished)
            except OSError as error:
                await asyncio.sleep(TICK_S)
                return Answer(number, 0, b"", time.monotonic() - intended, 0.0, str(error))
        self._answer = asyncio.get_running_loop().create_future()
        self._connection.send(self._client.request(body), number, intended, intended)
        return await self._answer

    def _finished(self, connection: Connection, status: int, body: bytes) -> None:
        answer = make_answer(connection, status, body)
        connection.number = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


def make_answer(connection: Connection, status: int, body: bytes) -> Answer:
    """Return the answer to the request that is under way on a connection."""
    assert connection.number is not None
    latency_s = time.monotonic() - connection.intended
    late_s = connection.sent - connection.intended
    if status == 0:
        return Answer(connection.number, 0, b"", latency_s, late_s, body.decode())
    return Answer(connection.number, status, body, latency_s, late_s)
