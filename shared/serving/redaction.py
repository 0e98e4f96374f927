"""What fails inside is logged without its words: an exception may carry the text it failed on."""

from __future__ import annotations

import logging
import traceback

from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)


def redacted(error: BaseException) -> str:
    """An exception and its causes as places in the code; never its message, never a value."""
    parts = []
    one: BaseException | None = error
    while one is not None:
        frames = traceback.extract_tb(one.__traceback__)
        places = "".join(f"\n  {frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
        parts.append(f"{type(one).__module__}.{type(one).__qualname__}{places}")
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "\ncaused by ".join(parts)


class RedactErrors:
    """ASGI middleware: the answer to what nobody expected, and its place in the log.

    Nothing is raised further: the server would log the message.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; answer 500 where that fails, unless an answer has begun."""
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http":
                raise
            log.error("unexpected error: %s", redacted(error))
            if not begun:
                from shared.serving.server import internal_response

                await internal_response()(scope, receive, send)
