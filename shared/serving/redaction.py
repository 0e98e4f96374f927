"""Logs unexpected exceptions without their messages, which may contain a request's text."""

from __future__ import annotations

import logging
import traceback

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.serving.responses import internal_error_response

log = logging.getLogger(__name__)


def redacted(error: BaseException) -> str:
    """Return the classes and code locations of an exception and its causes.

    The result contains no message and no value.
    """
    parts = []
    current: BaseException | None = error
    while current is not None:
        frames = traceback.extract_tb(current.__traceback__)
        locations = "".join(f"\n  {frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
        parts.append(f"{type(current).__module__}.{type(current).__qualname__}{locations}")
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )
    return "\ncaused by ".join(parts)


class RedactErrors:
    """ASGI middleware that answers unexpected exceptions with 500 and logs them redacted.

    It does not raise the exception again, because the server would log its message.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application; answer 500 if it raises before its response has started."""
        started = False

        async def track_start(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, track_start)
        except Exception as error:
            if scope["type"] != "http":
                raise
            log.error("unexpected error: %s", redacted(error))
            if not started:
                await internal_error_response()(scope, receive, send)
