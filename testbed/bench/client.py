"""The one client of the benchmark: closed loop and open loop over plain HTTP/1.1 connections.

Written on asyncio's streams, because on two cores a heavier client would be what is measured.
Latency in the open loop counts from the intended send time, so that a server that stalls is charged
for the requests that waited for it (coordinated omission).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Body = Callable[[str], dict[str, Any]]
PATIENCE_S = 10.0
"""How long the open loop waits for an answer."""


@dataclass
class Tally:
    """Latencies in seconds of answers with status 200, and how many others there were."""

    latencies: list[float] = field(default_factory=list)
    errors: int = 0
    seconds: float = 0.0

    def report(self) -> dict[str, float]:
        """Requests a second, and percentiles in milliseconds."""
        ms = 1e3 * np.array(self.latencies or [np.nan])
        p50, p95, p99 = (round(float(np.percentile(ms, p)), 2) for p in (50, 95, 99))
        rate = round(len(self.latencies) / self.seconds, 1) if self.seconds else 0.0
        return {"rps": rate, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "errors": self.errors}


class Connection:
    """One kept connection to ``port`` on loopback."""

    def __init__(self, port: int, path: str) -> None:
        self._port, self._path = port, path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: dict[str, Any]) -> bool:
        """Post one body and read the answer; whether its status was 200."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        content = json.dumps(body).encode()
        writer.write(
            b"POST %s HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % (self._path.encode(), len(content)) + content
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        lines = head.split(b"\r\n")
        length = next((line for line in lines if line.startswith(b"content-length:")), None)
        if length is None:
            await _read_chunks(reader)
        else:
            await reader.readexactly(int(length.split(b":")[1]))
        return b" 200 " in lines[0]

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _read_chunks(reader: asyncio.StreamReader) -> None:
    size = -1
    while size:
        size = int(await reader.readuntil(b"\r\n"), 16)
        await reader.readexactly(size + 2)


async def closed_loop(
    port: int, path: str, body: Body, texts: Sequence[str], workers: int, seconds: float
) -> Tally:
    """``workers`` connections, each sending its next text when it has the last one's answer."""
    tally, started = Tally(), time.perf_counter()

    async def work(number: int) -> None:
        connection, turn = Connection(port, path), number
        while time.perf_counter() < started + seconds:
            sent = time.perf_counter()
            good = await connection.ask(body(texts[turn % len(texts)]))
            if good:
                tally.latencies.append(time.perf_counter() - sent)
            else:
                tally.errors += 1
            turn += workers
        connection.close()

    await asyncio.gather(*map(work, range(workers)))
    tally.seconds = time.perf_counter() - started
    return tally


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Poisson arrivals at ``rate`` a second: the intended send times, in seconds from the start."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(1 / rate, int(2 * rate * seconds) + 20))
    return [float(one) for one in times[times < seconds]]


async def open_loop(
    port: int, path: str, body: Body, texts: Sequence[str], times: Sequence[float]
) -> Tally:
    """Send at the intended ``times``, whatever has or has not been answered; skip nothing."""
    tally, free, opened = Tally(), list[Connection](), list[Connection]()
    started = time.perf_counter()

    async def one(number: int, at: float) -> None:
        await asyncio.sleep(max(0.0, started + at - time.perf_counter()))
        if free:
            connection = free.pop()
        else:
            connection = Connection(port, path)
            opened.append(connection)
        try:
            async with asyncio.timeout(PATIENCE_S):
                good = await connection.ask(body(texts[number % len(texts)]))
        except (TimeoutError, OSError, EOFError):
            tally.errors += 1
            connection.close()
            return
        if good:
            tally.latencies.append(time.perf_counter() - started - at)
        else:
            tally.errors += 1
        free.append(connection)

    await asyncio.gather(*(one(number, at) for number, at in enumerate(times)))
    tally.seconds = time.perf_counter() - started
    for connection in opened:
        connection.close()
    return tally
