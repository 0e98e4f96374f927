"""Event streams of the page: order, reconnection, slow readers, limits and the server's stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import Response

from mobile_client.gateway.dashboard import event_feed
from mobile_client.gateway.dashboard.event_feed import MAX_STREAMS, EventFeed
from mobile_client.gateway.dashboard.event_stream import EventStreamResponse
from mobile_client.gateway.dashboard.live_stats import LiveStats
from shared.errors import Overloaded
from shared.serving.connection import ConnectionLimits
from shared.serving.error_handlers import install_error_handlers
from shared.serving.server import is_stopping
from tests.support.entries import caller
from tests.support.servers import serving

Event = tuple[str, str, dict[str, Any]]


class Feed:
    """A server with one event stream, whose figures and readers a test controls."""

    def __init__(self) -> None:
        self.stats = LiveStats()
        self.app = FastAPI()
        self.valid = True
        self.filler = ""
        self.feed = EventFeed(
            self.stats, lambda: {"filler": self.filler}, lambda: is_stopping(self.app)
        )
        install_error_handlers(self.app)

        @self.app.get("/events")
        async def events(request: Request) -> Response:
            self.feed.check_room()
            last_id = request.headers.get("last-event-id", "")
            return EventStreamResponse(self.feed, last_id, lambda: self.valid)

    def end_request(self, number: int) -> None:
        self.stats.attempt_ended(caller(f"a{number}", request_id=f"r{number}"))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - anything may change it
                await asyncio.sleep(0.01)


class Reader:
    """A reader of the stream, as a browser is."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.head = ""
        self._whole: list[bytes] = []
        self._rest = b""

    @classmethod
    @asynccontextmanager
    async def open(cls, port: int, last_id: str = "") -> AsyncIterator[Reader]:
        stream = cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**24))
        header = f"last-event-id: {last_id}\r\n" if last_id else ""
        stream.writer.write(f"GET /events HTTP/1.1\r\nhost: x\r\n{header}\r\n".encode())
        stream.head = (await stream.reader.readuntil(b"\r\n\r\n")).decode().lower()
        try:
            yield stream
        finally:
            stream.writer.close()

    async def events(self) -> AsyncIterator[Event]:
        """Yield the next events, until the server ends the stream."""
        while True:
            while self._whole:
                event = self._whole.pop(0)
                fields = dict(line.split(": ", 1) for line in event.decode().splitlines())
                if "event" in fields:
                    yield fields["id"], fields["event"], json.loads(fields["data"])
            piece = await self._chunk()
            if not piece:
                return
            *self._whole, self._rest = (self._rest + piece).split(b"\n\n")

    async def _chunk(self) -> bytes:
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def next(self, name: str) -> Event:
        """Return the next event of this name."""
        async for event in self.events():
            if event[1] == name:
                return event
        raise AssertionError("the stream ended")

    async def to_end(self) -> list[Event]:
        return [event async for event in self.events()]


def run(
    client: Callable[[Feed, uvicorn.Server, int], Awaitable[None]],
    limits: ConnectionLimits | None = None,
) -> None:
    async def main() -> None:
        feed = Feed()
        async with asyncio.timeout(60), serving(feed.app, limits) as (server, port):
            feed.app.state.server = server
            await client(feed, server, port)

    asyncio.run(main())


def test_stream_begins_with_figures_and_goes_on_with_requests() -> None:
    async def client(feed: Feed, _: uvicorn.Server, port: int) -> None:
        feed.end_request(1)
        async with Reader.open(port) as reader:
            assert "content-type: text/event-stream" in reader.head
            assert "cache-control: no-store" in reader.head
            _, _, figures = await reader.next("stats")
            assert figures["requests_left_out"] == 0
            feed.end_request(2)
            event_id, _, record = await reader.next("request")
            assert record["request_id"] == "r2", "requests of the past are in the ledger"
            assert record["trace_id"] == caller().trace_id
            assert "text_hash" not in record
            assert event_id.endswith("-2")
            assert (await reader.next("stats"))[0] == event_id

    run(client)


def test_reader_that_comes_back_gets_what_it_missed_once() -> None:
    async def client(feed: Feed, _: uvicorn.Server, port: int) -> None:
        async with Reader.open(port) as reader:
            await reader.next("stats")
            feed.end_request(1)
            last_id, _, _ = await reader.next("request")
        await feed.until(lambda: len(feed.feed) == 0)
        for number in (2, 3):
            feed.end_request(number)
        async with Reader.open(port, last_id) as reader:
            seen = [(await reader.next("request"))[2]["request_id"] for _ in range(2)]
            feed.end_request(4)
            seen.append((await reader.next("request"))[2]["request_id"])
            assert seen == ["r2", "r3", "r4"]

    run(client)


@pytest.mark.parametrize("last_id", ["other-1", "x", "-", "1-", "\u00e9", "a" * 500])
def test_id_of_another_process_brings_nothing_back(last_id: str) -> None:
    async def client(feed: Feed, _: uvicorn.Server, port: int) -> None:
        feed.end_request(1)
        async with Reader.open(port, last_id) as reader:
            async for _id, name, _data in reader.events():
                assert name == "stats"
                break

    run(client)


def test_stream_ends_when_the_server_stops() -> None:
    async def client(feed: Feed, server: uvicorn.Server, port: int) -> None:
        async with Reader.open(port) as one, Reader.open(port) as other:
            await one.next("stats")
            await other.next("stats")
            server.should_exit = True
            async with asyncio.timeout(10):
                await asyncio.gather(one.to_end(), other.to_end())
        assert len(feed.feed) == 0

    run(client)


def test_stopping_server_does_not_wait_for_a_reader_that_does_not_read() -> None:
    async def client(feed: Feed, server: uvicorn.Server, port: int) -> None:
        feed.filler = "x" * 4_000_000  # more than the buffers of a connection hold
        async with Reader.open(port) as _reader:
            await feed.until(lambda: len(feed.feed) == 1)
            await asyncio.sleep(1.5)  # the next figures are on their way
            server.should_exit = True
            await feed.until(lambda: not server.server_state.connections)

    run(client)


def test_reader_that_is_too_slow_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feed, "MAX_WAITING", 2)
    monkeypatch.setattr(event_feed, "FIGURES_S", 0.0)

    async def client(feed: Feed, _: uvicorn.Server, port: int) -> None:
        feed.filler = "x" * 4_000_000
        async with Reader.open(port):
            await feed.until(lambda: len(feed.feed) == 1)
            await feed.until(lambda: len(feed.feed) == 0)

    run(client)


def test_limits_of_requests_and_idle_connections_do_not_end_a_stream() -> None:
    async def client(feed: Feed, _: uvicorn.Server, port: int) -> None:
        async with Reader.open(port) as reader:
            for _number in range(3):  # figures of three seconds
                waiting, _ = await asyncio.open_connection("127.0.0.1", port)
                await reader.next("stats")
            assert await waiting.read() == b"", "a connection without a request is closed"
            feed.end_request(1)
            assert (await reader.next("request"))[2]["request_id"] == "r1"

    run(client, ConnectionLimits(head_s=0.2, body_s=0.2, write_s=0.2, connections=1))


def test_stream_of_a_revoked_token_ends() -> None:
    async def client(feed: Feed, _: uvicorn.Server, port: int) -> None:
        async with Reader.open(port) as reader:
            await reader.next("stats")
            feed.valid = False
            async with asyncio.timeout(10):
                await reader.to_end()

    run(client)


def test_reader_that_leaves_is_forgotten_and_nothing_runs_without_readers() -> None:
    async def client(feed: Feed, _: uvicorn.Server, port: int) -> None:
        async with Reader.open(port) as reader:
            await reader.next("stats")
        await feed.until(lambda: len(feed.feed) == 0)
        names = [task.get_name() for task in asyncio.all_tasks() if not task.done()]
        assert "events of the dashboard" not in names

    run(client)


def test_number_of_streams_is_limited() -> None:
    async def main() -> None:
        feed = Feed().feed
        streams = [feed.open("", lambda: True) for _ in range(MAX_STREAMS)]
        with pytest.raises(Overloaded) as refused:
            feed.check_room()
        assert refused.value.retry_after_s
        feed.close(streams[0])
        feed.check_room()
        for stream in streams:
            feed.close(stream)

    asyncio.run(main())


def test_only_the_newest_requests_of_a_second_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_feed, "MAX_REQUESTS_PER_S", 3)

    async def client(feed: Feed, _: uvicorn.Server, port: int) -> None:
        async with Reader.open(port) as reader:
            await reader.next("stats")
            for number in range(1, 11):
                feed.end_request(number)
            seen = []
            async for _id, name, data in reader.events():
                if name == "stats":
                    break
                seen.append(data["request_id"])
            assert seen == ["r8", "r9", "r10"]
            assert data["requests_left_out"] == 7

    run(client)
