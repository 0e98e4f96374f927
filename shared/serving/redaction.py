"""Logs unexpected exceptions without their messages, which may contain a request's text."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.redaction import redacted
from shared.serving.responses import internal_error_response

log = logging.getLogger(__name__)


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
