"""Reads the ledger for the page: requests, entries of a request, and requests to replay."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from mobile_client.gateway.dashboard.thread_calls import ThreadCalls
from mobile_client.settings import MobileSettings
from shared.credentials import Credentials
from shared.errors import Forbidden, InvalidInput, LedgerUnavailable, Unauthorised
from shared.ledger.client import LedgerClient

SILENCE_S = 5.0
"""Longest silence of the ledger, in seconds."""
T = TypeVar("T")


class LedgerReader:
    """Runs functions with a client of the settings' ledger, off the event loop."""

    def __init__(self, settings: MobileSettings) -> None:
        self._settings = settings
        self._calls = ThreadCalls("ledger")
        self._ledger: LedgerClient | None = None

    async def read(self, work: Callable[[LedgerClient], T]) -> T:
        """Return the result of ``work``, or raise what it or `ThreadCalls.run` raises.

        Raises `LedgerUnavailable` if the ledger is off, cannot be reached or refuses the gateway's
        token.
        """
        return await self._calls.run(partial(self._run, work))

    def _run(self, work: Callable[[LedgerClient], T]) -> T:
        try:
            return work(self._client())
        except (Unauthorised, Forbidden) as error:
            # it is not about the caller's token: a browser would ask for another one
            raise LedgerUnavailable(
                f"the ledger refuses the gateway's token ({error.message}); give the gateway one "
                "with the scope ledger:read (DIMEE_TOKEN_FILE)"
            ) from None

    def _client(self) -> LedgerClient:
        if self._ledger is None:
            url, credentials = self._settings.ledger_url, Credentials.of(self._settings)
            try:
                self._ledger = LedgerClient(url, credentials=credentials, timeout_s=SILENCE_S)
            except InvalidInput as error:  # DIMEE_LEDGER_URL is off
                raise LedgerUnavailable(error.message) from None
        return self._ledger

    def close(self) -> None:
        """Close the connections, unless a call still uses them."""
        if self._calls.close() and self._ledger is not None:
            self._ledger.close()
