"""Watches how long the entries of an outbox have not been delivered, and says why."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
import time
from collections.abc import Callable

import httpx
from pydantic import BaseModel, ConfigDict

from shared.redaction import without_credentials

log = logging.getLogger(__name__)

WARNING_S = 60.0
"""Default time in seconds without a successful delivery after which waiting entries are reported.
Restarts of the ledger are usually shorter."""
REJECTED = "it does not accept their content; they stay in the outbox, see this process's log"
MAX_COUNTED = 100_000
"""Most entries that are counted, because the count reads the outbox's table."""


class UndeliveredReport(BaseModel):
    """Entries that a process cannot deliver to the ledger.

    ``undelivered`` is at most `MAX_COUNTED`; ``waiting_s`` is the time in seconds since the first
    delivery that failed; ``url`` is the ledger's address without credentials; ``problem`` says why
    the last delivery failed. ``rejected`` counts entries that the ledger refused for good; they
    stay in the outbox, and their names are in the log.
    """

    model_config = ConfigDict(frozen=True)

    undelivered: int
    waiting_s: float
    url: str
    problem: str
    rejected: int = 0

    def sentence(self) -> str:
        """Return the report in words, without a verb: the caller names the process."""
        if not self.undelivered:
            noun = "entry" if self.rejected == 1 else "entries"
            return f"{self.rejected:,} ledger {noun} rejected: {self.url}: {self.problem}"
        more = " or more" if self.undelivered >= MAX_COUNTED else ""
        noun = "entry" if self.undelivered == 1 else "entries"
        return (
            f"{self.undelivered:,}{more} ledger {noun} undelivered for {self.waiting_s:.0f} s: "
            f"{self.url}: {self.problem}"
        )


class DeliveryWatch:
    """Time since a successful delivery while entries wait, and the last problem.

    The shipper's thread reports each delivery; `report` may be called from any thread and reads no
    file. ``clock`` returns seconds, ``count`` the number of waiting entries.
    """

    def __init__(
        self,
        ledger_url: str,
        count: Callable[[], int],
        warning_s: float = WARNING_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = without_credentials(ledger_url)
        self._count = count
        self._warning_s = warning_s
        self._clock = clock
        self._waiting_since: float | None = None
        self._failing = False
        self.rejected_entries = 0
        """Entries that the ledger refused for good."""
        self._last: UndeliveredReport | None = None

    def attempted(self) -> None:
        """Note that a delivery begins; the time counts from the first that fails."""
        if self._waiting_since is None:
            self._waiting_since = self._clock()

    def failed(self, problem: str) -> None:
        """Note that a delivery failed; log a warning when that has lasted ``warning_s``."""
        self.attempted()
        self._failing = True
        waiting_s = self._waiting_time()
        if waiting_s is None or waiting_s < self._warning_s:
            return
        warned = self._last is not None
        self._last = UndeliveredReport(
            undelivered=self._count(),
            waiting_s=round(waiting_s, 1),
            url=self._url,
            problem=problem,
        )
        if not warned:
            log.warning(
                "%s; requests are answered as before, and the entries stay in the outbox",
                self._last.sentence(),
            )

    def rejected(self, count: int) -> None:
        """Note that the ledger refuses ``count`` entries for good, now or before this process."""
        self.rejected_entries += count

    def succeeded(self) -> bool:
        """Note that nothing waits or a delivery succeeded; return whether a warning ends."""
        ends = self._last is not None
        self._waiting_since = self._last = None
        self._failing = False
        return ends

    def failing_s(self) -> float:
        """Return the seconds since the first of the deliveries that fail now; 0 if none fails."""
        return (self._waiting_time() or 0.0) if self._failing else 0.0

    def report(self) -> UndeliveredReport | None:
        """Return the entries that wait for ``warning_s`` or longer, and those that were rejected.

        None if there are none.
        """
        waiting_s, last, rejected = self._waiting_time(), self._last, self.rejected_entries
        if waiting_s is not None and last is not None:
            return last.model_copy(update={"waiting_s": round(waiting_s, 1), "rejected": rejected})
        if not rejected:
            return None
        return UndeliveredReport(
            undelivered=0, waiting_s=0.0, url=self._url, problem=REJECTED, rejected=rejected
        )

    def _waiting_time(self) -> float | None:
        since = self._waiting_since
        return None if since is None else self._clock() - since


def connection_problem(error: httpx.HTTPError) -> str:
    """Return in words why a request got no response, without the text of the exception."""
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case ssl.SSLCertVerificationError():
                return "its TLS certificate is not trusted; set DIMEE_TLS_CA"
            case ssl.SSLError():
                return "the TLS connection failed; check http or https in DIMEE_LEDGER_URL"
            case socket.gaierror():
                return "its host name cannot be resolved"
            case OSError(errno=errno.ECONNREFUSED):
                return "connection refused"
            case OSError(errno=errno.EHOSTUNREACH | errno.ENETUNREACH):
                return "its host cannot be reached"
        cause = cause.__cause__ or cause.__context__
    match error:
        case httpx.ConnectTimeout():
            return "the connection timed out"
        case httpx.TimeoutException():
            return "it does not answer in time"
        case httpx.UnsupportedProtocol():
            return "the address begins with neither http:// nor https://"
    return "the connection broke"


def status_problem(status: int) -> str:
    """Return in words why a response with this status is not a delivery."""
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return f"it rejects this process's token (status {status})"
    if status == httpx.codes.REQUEST_TIMEOUT:
        return f"the entries reach it too slowly (status {status})"
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return f"it limits this process's rate (status {status})"
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return f"it cannot store entries now (status {status})"
    return f"it does not accept entries (status {status}); check DIMEE_LEDGER_URL"
