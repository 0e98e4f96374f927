"""Group commit: writes entries to the outbox in shared transactions.

A transaction costs more than the rows in it.
"""

from __future__ import annotations

import asyncio

from shared.errors import NotReady
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox


class GroupCommitWriter:
    """Writes all entries that arrive within ``delay_s`` in one transaction.

    With a delay of 0 these are the entries of one iteration of the event loop, such as those of one
    batch. For use in one event loop.
    """

    def __init__(self, outbox: Outbox, delay_s: float) -> None:
        self._outbox = outbox
        self._delay_s = delay_s
        self._entries: list[LedgerEntry] = []
        self._waiting: list[asyncio.Future[None]] = []

    async def record(self, entry: LedgerEntry) -> None:
        """Write the entry and return when it is on disk; raise `NotReady` if that fails."""
        loop = asyncio.get_running_loop()
        if not self._entries:
            if self._delay_s:
                loop.call_later(self._delay_s, self._write)
            else:
                loop.call_soon(self._write)
        recorded: asyncio.Future[None] = loop.create_future()
        self._entries.append(entry)
        self._waiting.append(recorded)
        await recorded

    def _write(self) -> None:
        entries, waiting = self._entries, self._waiting
        self._entries, self._waiting = [], []
        error: NotReady | None = None
        try:
            self._outbox.record(*entries)
        except NotReady as full:
            error = full
        for recorded in waiting:
            if recorded.done():  # cancelled: its client disconnected
                continue
            if error is None:
                recorded.set_result(None)
            else:
                recorded.set_exception(error)
