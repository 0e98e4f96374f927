"""Refusals in an overload cost little: no ASGI is begun for them, and they are booked together.

A tier that is asked ten times what it can do would otherwise spend itself on saying no.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import ValidationError
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from shared.errors import DimeeError, NotReady, Overloaded
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from shared.service.doors import Door
from shared.service.plumbing import error_response
from shared.wire import InferRequest

GATHER_S = 0.002
"""How long a refusal waits for others, to be written to the outbox with them."""

Tell = Callable[[NotReady | None], None]
"""Called when an entry is on disk, or with the reason why it is not."""
Headers = list[tuple[bytes, bytes]]


class BookedTogether:
    """Writes entries that come within ``gather_s`` in one transaction, before any is answered.

    0: those of one turn of the event loop, as a batch that leaves brings them.
    """

    def __init__(self, outbox: Outbox, gather_s: float) -> None:
        self._outbox = outbox
        self._gather_s = gather_s
        self._entries: list[LedgerEntry] = []
        self._waiting: list[Tell] = []

    def record(self, entry: LedgerEntry, tell: Tell) -> None:
        """Book the entry soon, then call ``tell``."""
        if not self._entries:
            loop = asyncio.get_running_loop()
            if self._gather_s:
                loop.call_later(self._gather_s, self._write)
            else:
                loop.call_soon(self._write)
        self._entries.append(entry)
        self._waiting.append(tell)

    async def written(self, entry: LedgerEntry) -> None:
        """Book the entry, and return when it is on disk; raises `NotReady` where it cannot be."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def tell(full: NotReady | None) -> None:
            if future.done():  # whoever hangs up leaves alone
                return
            if full is None:
                future.set_result(None)
            else:
                future.set_exception(full)

        self.record(entry, tell)
        await future

    def _write(self) -> None:
        entries, waiting = self._entries, self._waiting
        self._entries, self._waiting = [], []
        error: NotReady | None = None
        try:
            self._outbox.record(*entries)
        except NotReady as full:  # a full disk: nobody is told what is not booked
            error = full
        for tell in waiting:
            tell(error)


Refuse = Callable[[InferRequest, Callable[[DimeeError], None]], bool]


@dataclass(frozen=True, slots=True)
class Refusals:
    """What the protocol has to know of a tier, to refuse ``POST path`` by itself.

    ``congested`` is a glance. ``refuse`` decides: True where it will call back with the error to
    answer, when it is booked; False where the request is let in.
    """

    path: bytes
    congested: Callable[[], bool]
    refuse: Refuse
    door: Door | None = None

    def take(self, body: bytes, tell: Callable[[DimeeError], None]) -> bool:
        """Whether this body is refused; what is no valid request is for the framework to answer."""
        try:
            request = InferRequest.model_validate_json(body)
        except ValidationError:
            return False
        return self.refuse(request, tell)


class Rendered:
    """Errors as bytes, the same as the framework would send; alike for many in a row."""

    def __init__(self) -> None:
        self._defaults: Headers | None = None
        self._known: dict[object, tuple[bytes, bytes]] = {}

    def of(self, error: DimeeError, defaults: Headers, keep_alive: bool) -> bytes:
        """A whole answer; ``defaults`` are the server's headers, a new list every second."""
        if defaults is not self._defaults:
            self._defaults, self._known = defaults, {}
        key = type(error), error.message, error.limit, error.retry_after_s
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = _parts(error, defaults)
        head, body = found
        return b"".join((head, b"\r\n" if keep_alive else b"connection: close\r\n\r\n", body))


def _parts(error: DimeeError, defaults: Headers) -> tuple[bytes, bytes]:
    response = error_response(error)
    lines = [STATUS_LINE[response.status_code]]
    for name, value in [*defaults, *response.raw_headers]:
        lines += [name, b": ", value, b"\r\n"]
    return b"".join(lines), bytes(response.body)


def booked(error: Overloaded, tell: Callable[[DimeeError], None]) -> Tell:
    """Tells ``error`` when it is booked, and why not where it cannot be."""
    return lambda full: tell(error if full is None else full)
