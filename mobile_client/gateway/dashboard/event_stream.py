"""Response that sends Server-Sent Events until the reader leaves or its stream is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from mobile_client.gateway.dashboard.event_feed import EventFeed, Stream
from shared.serving.disconnect import ClientDisconnected, cancel_on_disconnect
from shared.serving.whole_requests import ABORT


class EventStreamResponse(Response):
    """One reader's stream of a feed; for ``last_id`` and ``is_valid`` see `EventFeed.open`."""

    media_type = "text/event-stream"

    def __init__(self, feed: EventFeed, last_id: str, is_valid: Callable[[], bool]) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._feed = feed
        self._last_id = last_id
        self._is_valid = is_valid

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Send pieces of the stream until it ends; a reader that is behind loses its connection."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        stream = self._feed.open(self._last_id, self._is_valid)
        try:
            await send(start)
            with suppress(ClientDisconnected):
                await cancel_on_disconnect(receive, _send_pieces(stream, send, scope))
        finally:
            self._feed.close(stream)


async def _send_pieces(stream: Stream, send: Send, scope: AsgiScope) -> None:
    ended = asyncio.ensure_future(stream.ended.wait())
    try:
        while (piece := await stream.next()) is not None:
            body = {"type": "http.response.body", "body": piece, "more_body": True}
            # it waits while the reader does not read, and then nothing else ends it
            sending = asyncio.ensure_future(send(body))
            try:
                await asyncio.wait({sending, ended}, return_when=asyncio.FIRST_COMPLETED)
                if not sending.done():
                    if abort := scope.get(ABORT):
                        abort()
                    return
                sending.result()
            finally:
                sending.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        ended.cancel()
