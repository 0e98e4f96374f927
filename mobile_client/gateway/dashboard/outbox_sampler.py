"""Entries that wait for the ledger, counted in a thread, because the count reads the disk."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import suppress

from mobile_client.gateway.dashboard.thread_calls import ThreadCalls
from shared.errors import DimeeError
from shared.ledger.outbox import Outbox
from shared.ledger.outbox_metrics import oldest_age_s
from shared.ledger.undelivered import MAX_COUNTED


class OutboxSampler:
    """Figures of an outbox; None until they were counted for the first time."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._calls = ThreadCalls("outbox")
        self._latest: dict[str, float | None] = {"outbox_rows": None, "outbox_age_s": None}
        self._task: asyncio.Task[None] | None = None

    def latest(self) -> dict[str, float | None]:
        """Return the latest figures, and begin to count again."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._renew())
        return self._latest

    async def _renew(self) -> None:
        with suppress(DimeeError, sqlite3.Error):
            self._latest = await self._calls.run(self._count)

    def _count(self) -> dict[str, float | None]:
        rows, age_s = self._outbox.count_pending(MAX_COUNTED), oldest_age_s(self._outbox)
        return {"outbox_rows": rows, "outbox_age_s": age_s}

    def close(self) -> None:
        """End the thread; call it before the outbox is closed."""
        self._calls.close()
