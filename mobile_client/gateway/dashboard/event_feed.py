"""Server-Sent Events: sends ended requests and figures to every open stream."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from mobile_client.gateway.dashboard.live_stats import Finished, LiveStats
from shared.errors import Overloaded

MAX_STREAMS = 64
MAX_WAITING = 64
"""Most pieces that wait for a reader. One that is slower is dropped; it may connect again."""
FLUSH_S = 0.1
"""Seconds between two looks at what has happened."""
FIGURES_S = 1.0
MAX_REQUESTS_PER_S = 100
"""Most events of requests that are sent in a second; the newest are sent."""
RETRY_MS = 2_000
"""Time after which a browser connects again."""
RETRY_AFTER_S = 10.0


class Stream:
    """One reader's stream: a bounded queue of its next pieces. For one event loop."""

    def __init__(self, is_valid: Callable[[], bool]) -> None:
        self.is_valid = is_valid
        self.ended = asyncio.Event()
        self._pieces: deque[bytes] = deque()
        self._changed = asyncio.Event()

    def put(self, piece: bytes) -> None:
        """Queue a piece, or end the stream if too many wait: its reader is too slow."""
        if len(self._pieces) >= MAX_WAITING:
            self.end()
        else:
            self._pieces.append(piece)
            self._changed.set()

    def end(self) -> None:
        """End the stream at once, without the pieces that wait."""
        self._pieces.clear()
        self.ended.set()
        self._changed.set()

    async def next(self) -> bytes | None:
        """Return the next piece, once there is one; None when the stream has ended."""
        while not self._pieces and not self.ended.is_set():
            self._changed.clear()
            await self._changed.wait()
        return self._pieces.popleft() if self._pieces else None


class EventFeed:
    """Makes the events of all streams, while there is one. Use it in one event loop.

    ``make_stats`` returns the data of an event ``stats``; it is called once a second. Streams end
    when ``is_stopping`` says that the server stops.
    """

    def __init__(
        self,
        stats: LiveStats,
        make_stats: Callable[[], dict[str, object]],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._stats = stats
        self._make_stats = make_stats
        self._process = secrets.token_hex(4)
        self._streams: set[Stream] = set()
        self._sent = 0
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = is_stopping

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, last_id: str, is_valid: Callable[[], bool]) -> Stream:
        """Return a new stream, which begins with the requests that ended after event ``last_id``.

        ``is_valid`` is asked every second whether the reader may go on.
        """
        stream = Stream(is_valid)
        if self._task is None or self._task.done():
            self._sent = self._stats.count
            self._task = asyncio.create_task(self._run(), name="events of the dashboard")
        self._streams.add(stream)
        stream.put(f"retry: {RETRY_MS}\n\n".encode() + self._missed(last_id) + self._figures(0))
        return stream

    def close(self, stream: Stream) -> None:
        """Forget a stream whose reader has left."""
        self._streams.discard(stream)
        if not self._streams and self._task is not None:
            self._task.cancel()
            self._task = None

    def check_room(self) -> None:
        """Raise `Overloaded` if there are too many streams."""
        if len(self._streams) >= MAX_STREAMS:
            raise Overloaded(
                f"{MAX_STREAMS} event streams are open; close a page, or try again later",
                limit=MAX_STREAMS,
                retry_after_s=RETRY_AFTER_S,
            )

    async def _run(self) -> None:
        budget, left_out, figures_at = MAX_REQUESTS_PER_S, 0, time.monotonic()
        try:
            while not self._is_stopping():
                await asyncio.sleep(FLUSH_S)
                new = [one for one in self._stats.finished if one.number > self._sent]
                chosen = new[max(0, len(new) - budget) :]
                left_out += self._stats.count - self._sent - len(chosen)
                budget -= len(chosen)
                self._sent = self._stats.count
                piece = b"".join(map(self._request_event, chosen))
                if time.monotonic() - figures_at >= FIGURES_S:
                    piece += self._figures(left_out)
                    budget, left_out, figures_at = MAX_REQUESTS_PER_S, 0, time.monotonic()
                    self._end_invalid()
                if piece:
                    for stream in self._streams:
                        stream.put(piece)
        finally:
            for stream in self._streams:
                stream.end()

    def _end_invalid(self) -> None:
        for stream in self._streams:
            if not stream.is_valid():
                stream.end()

    def _missed(self, last_id: str) -> bytes:
        """Return the events after the one with this id; none for an id of another process."""
        process, _, number = last_id.partition("-")
        if process != self._process:
            return b""
        with suppress(ValueError):
            after = int(number)
            missed = [one for one in self._stats.finished if after < one.number <= self._sent]
            return b"".join(map(self._request_event, missed))
        return b""

    def _request_event(self, finished: Finished) -> bytes:
        data = finished.record.model_dump(mode="json")
        return _event(f"{self._process}-{finished.number}", "request", data)

    def _figures(self, left_out: int) -> bytes:
        data = {"at": time.time(), **self._make_stats(), "requests_left_out": left_out}
        return _event(f"{self._process}-{self._sent}", "stats", data)


def _event(event_id: str, name: str, data: dict[str, object]) -> bytes:
    return f"id: {event_id}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()
