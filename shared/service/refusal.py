"""Refusals in an overload cost little: they come before the framework, and are booked together.

A tier that is asked ten times what it can do would otherwise spend itself on saying no.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import DimeeError, NotReady, Overloaded
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from shared.service.plumbing import error_response
from shared.wire import InferRequest

GATHER_S = 0.002
"""How long a refusal waits for others, to be written to the outbox with them."""

Refuse = Callable[[InferRequest], Awaitable[Overloaded | None]]


class BookedTogether:
    """Writes entries that come within ``gather_s`` in one transaction, before any is answered.

    0: those of one turn of the event loop, as a batch that leaves brings them.
    """

    def __init__(self, outbox: Outbox, gather_s: float) -> None:
        self._outbox = outbox
        self._gather_s = gather_s
        self._entries: list[LedgerEntry] = []
        self._written: asyncio.Future[None] | None = None

    async def record(self, entry: LedgerEntry) -> None:
        """Return when the entry is on disk."""
        loop = asyncio.get_running_loop()
        if self._written is None:
            self._written = loop.create_future()
            if self._gather_s:
                loop.call_later(self._gather_s, self._write)
            else:
                loop.call_soon(self._write)
        self._entries.append(entry)
        # whoever hangs up leaves alone
        await asyncio.shield(self._written)

    def _write(self) -> None:
        entries, written = self._entries, self._written
        self._entries, self._written = [], None
        assert written is not None
        try:
            self._outbox.record(*entries)
        except NotReady as error:  # a full disk: nobody is told what is not booked
            written.set_exception(error)
        else:
            written.set_result(None)


class QuickRefusal:
    """ASGI middleware inside `BodyLimit`: answers 429 where ``congested()`` and ``refuse`` say so.

    What is no valid request, or is let in after all, goes on as it came.
    """

    def __init__(
        self, app: ASGIApp, path: str, congested: Callable[[], bool], refuse: Refuse
    ) -> None:
        self._app = app
        self._path = path
        self._congested = congested
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on."""
        if (
            scope["type"] != "http"
            or scope["path"] != self._path
            or scope["method"] != "POST"
            or not self._congested()
        ):
            await self._app(scope, receive, send)
            return
        first = await receive()
        if first["type"] == "http.request" and not first.get("more_body", False):
            try:
                request = InferRequest.model_validate_json(first.get("body", b""))
            except ValidationError:
                pass
            else:
                error: DimeeError | None
                try:
                    error = await self._refuse(request)
                except NotReady as full:
                    error = full
                if error is not None:
                    await error_response(error)(scope, receive, send)
                    return
        told = False

        async def again() -> Message:
            nonlocal told
            if told:
                return await receive()
            told = True
            return first

        await self._app(scope, again, send)
