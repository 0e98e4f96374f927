"""Background delivery of an outbox to the ledger, at least once for each entry."""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import httpx
from pydantic import ValidationError

from shared.bounded_transport import BoundedTransport
from shared.credentials import Credentials
from shared.errors import InvalidInput, TooLarge, from_payload
from shared.http_fetch import fetch, json_of
from shared.ledger.delivery_spans import begin_delivery, end_delivery
from shared.ledger.outbox import Outbox
from shared.ledger.outbox_table import Row
from shared.ledger.reports import StoreResult
from shared.ledger.undelivered import (
    MAX_COUNTED,
    WARNING_S,
    DeliveryWatch,
    UndeliveredReport,
    connection_problem,
    status_problem,
)

log = logging.getLogger(__name__)

BATCH_ENTRIES = 500
MAX_BACKOFF_S = 5.0
MAX_ANSWER_BYTES = 1024 * 1024
"""Largest answer to a batch that is read."""
CHECKPOINT_INTERVAL_S = 0.25
"""Interval of the outbox's maintenance while the ledger is unavailable: a large checkpoint would
keep the disk busy and make recording wait."""

ADOPTION_INTERVAL_S = 30.0
"""Interval at which the outboxes of processes that died are looked for. A successor that starts in
the same folder takes them over at once, but one that is started on another machine cannot."""
STOP_S = 1.0
"""Least time in seconds that closing waits for the thread."""


class Shipper:
    """Thread that posts pending entries to ``{ledger_url}/v1/entries``.

    It wakes when an entry is recorded and waits ``interval_s`` to collect a batch. While the ledger
    is unavailable it waits longer, doubling to 5 s with jitter. It repeats a delivery until the
    ledger confirms it; the ledger ignores entries that it already has. Memory holds one batch at a
    time. ``pause(seconds)`` replaces the waiting in tests.

    Every ``adoption_interval_s`` the outbox takes over the entries of processes that died.

    Entries that wait for ``warning_s`` without a successful delivery are logged once, and
    `undelivered` reports them; ``clock`` returns the seconds of that time.
    """

    def __init__(
        self,
        outbox: Outbox,
        ledger_url: str,
        interval_s: float = 0.1,
        credentials: Credentials | None = None,
        pause: Callable[[float], object] | None = None,
        warning_s: float = WARNING_S,
        clock: Callable[[], float] = time.monotonic,
        adoption_interval_s: float = ADOPTION_INTERVAL_S,
    ) -> None:
        credentials = credentials or Credentials()
        self._outbox = outbox
        self._interval_s = interval_s
        self._adoption_interval_s = adoption_interval_s
        self._http = httpx.Client(
            base_url=ledger_url,
            transport=BoundedTransport(credentials.verify),
            trust_env=False,
            timeout=10.0,
            auth=credentials.auth,
        )
        self._logged_problem: str | None = None
        self._watch = DeliveryWatch(
            ledger_url, lambda: outbox.count_pending(MAX_COUNTED), warning_s, clock
        )
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)
        self._stopping = threading.Event()
        self._pause = pause or self._stopping.wait
        self._sending = threading.Lock()
        self._jitter = random.Random()

    def start(self) -> None:
        """Start the thread; entries left by earlier processes are delivered first."""
        self._outbox.recorded.set()
        self._thread.start()

    def undelivered(self) -> UndeliveredReport | None:
        """Return the entries that wait for ``warning_s`` or longer or were rejected, or None."""
        return self._watch.report()

    @property
    def rejected_entries(self) -> int:
        """Number of entries that the ledger refused for good."""
        return self._watch.rejected_entries

    def failing_s(self) -> float:
        """Return the seconds since the first of the deliveries that fail now; 0 if none fails."""
        return self._watch.failing_s()

    def flush(self, timeout_s: float) -> bool:
        """Deliver all entries; return False if that fails or takes longer than ``timeout_s``."""
        until = time.monotonic() + timeout_s
        while self._outbox.pending(1):
            left_s = until - time.monotonic()
            if left_s <= 0 or not self._deliver_once(timeout_s=left_s):
                return False
        return True

    def close(self, timeout_s: float) -> None:
        """Stop after a last delivery within ``timeout_s``; undelivered entries stay on disk."""
        until = time.monotonic() + timeout_s
        self._stopping.set()
        self._outbox.recorded.set()
        if self._thread.is_alive():
            self._thread.join(max(STOP_S, timeout_s))
        self.flush(max(0.0, until - time.monotonic()))
        self._http.close()

    def _run(self) -> None:
        try:
            self._watch.rejected(self._outbox.count_rejected())
        except sqlite3.Error:
            log.exception("the outbox's rejected entries could not be counted")
        backoff_s = 0.0
        adopt_at = time.monotonic() + self._adoption_interval_s
        while not self._stopping.is_set():
            self._outbox.recorded.wait(self._adoption_interval_s)
            try:
                if time.monotonic() >= adopt_at:
                    adopt_at = time.monotonic() + self._adoption_interval_s
                    self._outbox.adopt_unused()
                self._wait(backoff_s or self._interval_s)
                if self._stopping.is_set():
                    return
                self._outbox.recorded.clear()
                self._outbox.maintain()
                delivered = self._deliver_once(timeout_s=10.0)
                # while entries are refused, try again also without traffic
                more = delivered and (bool(self._outbox.pending(1)) or self._outbox.refuses)
            except Exception:
                if self._stopping.is_set():  # the outbox may be closed already
                    return
                log.exception("the outbox could not be delivered; trying again")
                with suppress(sqlite3.Error):  # the watch counts the outbox's rows
                    self._watch.failed("the outbox cannot be read or sent; see this process's log")
                delivered = more = False
            if more or not delivered:
                self._outbox.recorded.set()
            if delivered:
                backoff_s = 0.0
            else:
                doubled = min(MAX_BACKOFF_S, max(0.2, backoff_s * 2))
                backoff_s = doubled * self._jitter.uniform(0.5, 1.0)

    def _wait(self, seconds: float) -> None:
        while seconds > CHECKPOINT_INTERVAL_S and not self._stopping.is_set():
            self._pause(CHECKPOINT_INTERVAL_S)
            self._outbox.maintain()
            seconds -= CHECKPOINT_INTERVAL_S
        self._pause(seconds)

    def _deliver_once(self, timeout_s: float) -> bool:
        """Send one batch; return False if the ledger could not store it now."""
        if not self._sending.acquire(timeout=timeout_s):
            return False  # another delivery waits for the ledger
        try:
            self._watch.attempted()
            rows = self._outbox.pending(BATCH_ENTRIES)
            if rows:
                return self._send(rows, timeout_s)
            self._watch.succeeded()
            return True
        finally:
            self._sending.release()

    def _send(self, rows: list[Row], timeout_s: float) -> bool:
        body = '{"entries":[' + ",".join(row[3] for row in rows) + "]}"
        span, status = begin_delivery(rows), None
        try:
            response = fetch(
                self._http,
                "POST",
                "/v1/entries",
                max_bytes=MAX_ANSWER_BYTES,
                content=body.encode(),
                headers={"content-type": "application/json"} | (span.headers if span else {}),
                timeout=max(0.05, timeout_s),
            )
            status = response.status_code
        except httpx.HTTPError as error:
            self._watch.failed(connection_problem(error))
            if "CERTIFICATE" in str(error):
                self._log_access(
                    f"the ledger's TLS certificate is not trusted; set DIMEE_TLS_CA ({error})"
                )
            return False
        finally:
            end_delivery(span, status)
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            self._log_access(
                f"the ledger rejects this process's token ({response.status_code}); set "
                "DIMEE_TOKEN or DIMEE_TOKEN_FILE to a token with the scope ledger:write"
            )
        if response.is_success:
            if not _confirms(response, len(rows)):
                self._watch.failed(
                    "it does not confirm the entries, as a ledger does; check DIMEE_LEDGER_URL"
                )
                return False
            self._outbox.mark_delivered([row[:3] for row in rows])
            self._log_accepted()
            return True
        rejected = _rejects(response)
        # a proxy in front of the ledger may refuse a large batch, but says nothing about an entry
        too_large = response.status_code == TooLarge.status and len(rows) > 1
        if not (rejected or too_large):
            self._watch.failed(status_problem(response.status_code))
            return False
        if len(rows) == 1:
            log.error("the ledger rejects entry %s (%s)", rows[0][0], response.status_code)
            self._outbox.quarantine(*rows[0][:3])
            self._watch.rejected(1)
            self._log_accepted()
            return True
        half = len(rows) // 2
        return self._send(rows[:half], timeout_s) and self._send(rows[half:], timeout_s)

    def _log_access(self, problem: str) -> None:
        """Log once a problem that an operator must solve."""
        if problem != self._logged_problem:
            log.error("%s; until then entries stay in the outbox", problem)
        self._logged_problem = problem

    def _log_accepted(self) -> None:
        """Log, at the level of the default settings, that a logged problem is solved."""
        if self._watch.succeeded() or self._logged_problem is not None:
            log.warning("the ledger accepts this process again; the outbox is delivered")
        self._logged_problem = None


def _confirms(response: httpx.Response, count: int) -> bool:
    """Return True if the response says that ``count`` entries are stored."""
    try:
        result = StoreResult.model_validate(json_of(response))
    except ValidationError:
        return False
    return result.stored + result.duplicates == count


def _rejects(response: httpx.Response) -> bool:
    """Return True if the ledger itself rejects the entries: not a proxy or another server.

    Other refusals concern the message, such as one that arrived too slowly: it is sent again.
    """
    body = json_of(response)
    error = from_payload(body, response.status_code)
    return type(error) in (InvalidInput, TooLarge) and error.status == response.status_code
