"""Runs blocking calls in a thread that neither the page nor the gateway's stop waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from mobile_client.local.worker import Worker
from shared.errors import DeadlineExceeded, Overloaded

TIMEOUT_S = 10.0
"""Most time of a call, its wait for others included."""
MAX_CALLS = 16
"""Most calls at once, of which one runs."""
CLOSE_S = 0.5
T = TypeVar("T")


class ThreadCalls:
    """Runs functions one after the other in a daemon thread. For one event loop.

    ``what`` names in messages what the functions ask.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._worker = Worker(f"dashboard-{what}")
        self._calls = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Return the result of ``work``, or raise what it raises.

        Raises `DeadlineExceeded` after `TIMEOUT_S`, and `Overloaded` beyond `MAX_CALLS`.
        """
        if self._calls >= MAX_CALLS:
            raise Overloaded(
                f"{MAX_CALLS} calls wait for the {self._what}; try again in 1 s",
                limit=MAX_CALLS,
                retry_after_s=1.0,
            )
        self._calls += 1
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await asyncio.get_running_loop().run_in_executor(self._worker, work)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the {self._what} has not answered within {TIMEOUT_S:.0f} s; see its log"
            ) from None
        finally:
            self._calls -= 1

    def close(self) -> bool:
        """Drop what waits; return whether the running call ended within `CLOSE_S`."""
        return self._worker.close(CLOSE_S)
