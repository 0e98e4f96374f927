"""Entries written to the outbox with their neighbours: a transaction costs more than a row."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shared.errors import NotReady
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox

Written = Callable[[NotReady | None], None]
"""Called when an entry is on disk, or with the reason why it is not."""


class GroupCommitWriter:
    """Writes entries that come within ``gather_s`` in one transaction, before any is answered.

    0: those of one turn of the event loop, as a batch that leaves brings them.
    """

    def __init__(self, outbox: Outbox, gather_s: float) -> None:
        self._outbox = outbox
        self._gather_s = gather_s
        self._entries: list[LedgerEntry] = []
        self._waiting: list[Written] = []

    def record(self, entry: LedgerEntry, tell: Written) -> None:
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
