"""Delivers an outbox to the ledger: at least once, in the background, whatever the ledger does."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

import httpx

from shared.credentials import Credentials
from shared.ledger.outbox import Outbox

log = logging.getLogger(__name__)

BATCH = 500
MAX_BACKOFF_S = 5.0
SETTLE_S = 0.25
"""The outbox's log is moved as often while the ledger is away: moving much at once keeps the disk
busy for so long that whoever records has to wait."""

Row = tuple[str, str, int, str]


class Shipper:
    """A thread that posts pending entries to ``{ledger_url}/v1/entries``.

    It wakes when something is recorded, waits ``interval_s`` so that a batch gathers, and backs off
    (doubling, with jitter, to 5 s) while the ledger is away. The ledger ignores what it has. It
    holds one batch in memory, however much waits on disk. ``pause`` waits for some seconds.
    """

    def __init__(
        self,
        outbox: Outbox,
        ledger_url: str,
        interval_s: float = 0.1,
        credentials: Credentials | None = None,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        shown = credentials or Credentials()
        self._outbox = outbox
        self._interval_s = interval_s
        self._http = httpx.Client(
            base_url=ledger_url,
            trust_env=False,
            timeout=10.0,
            auth=shown.auth,
            verify=shown.verify,
        )
        self._told: str | None = None
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)
        self._stopping = threading.Event()
        self._pause = pause or self._stopping.wait
        self._sending = threading.Lock()
        self._jitter = random.Random()

    def start(self) -> None:
        """Begin to deliver, first what earlier processes left."""
        self._outbox.recorded.set()
        self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Deliver now; whether everything was delivered within ``timeout_s``."""
        until = time.monotonic() + timeout_s
        while self._outbox.pending(1):
            left_s = until - time.monotonic()
            if left_s <= 0 or not self._deliver_once(timeout_s=left_s):
                return False
        return True

    def close(self, timeout_s: float) -> None:
        """Stop, after a last try to deliver within ``timeout_s``; the rest stays on disk."""
        self._stopping.set()
        self._outbox.recorded.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s + 1.0)
        self.flush(timeout_s)
        self._http.close()

    def _run(self) -> None:
        backoff_s = 0.0
        while not self._stopping.is_set():
            self._outbox.recorded.wait()
            self._rest(backoff_s or self._interval_s)
            if self._stopping.is_set():
                return
            self._outbox.recorded.clear()
            try:
                self._outbox.checkpoint()
                delivered = self._deliver_once(timeout_s=10.0)
            except Exception:
                log.exception("the outbox could not be delivered; trying again")
                delivered = False
            if delivered:
                backoff_s = 0.0
                if self._outbox.pending(1):
                    self._outbox.recorded.set()
            else:
                doubled = min(MAX_BACKOFF_S, max(0.2, backoff_s * 2))
                backoff_s = doubled * self._jitter.uniform(0.5, 1.0)
                self._outbox.recorded.set()

    def _rest(self, seconds: float) -> None:
        while seconds > SETTLE_S and not self._stopping.is_set():
            self._pause(SETTLE_S)
            self._outbox.checkpoint()
            seconds -= SETTLE_S
        self._pause(seconds)

    def _deliver_once(self, timeout_s: float) -> bool:
        """Send one batch; false where the ledger could not take it now."""
        with self._sending:
            rows = self._outbox.pending(BATCH)
            return self._send(rows, timeout_s) if rows else True

    def _send(self, rows: list[Row], timeout_s: float) -> bool:
        body = '{"entries":[' + ",".join(row[3] for row in rows) + "]}"
        try:
            response = self._http.post(
                "/v1/entries",
                content=body.encode(),
                headers={"content-type": "application/json"},
                timeout=max(0.05, timeout_s),
            )
        except httpx.HTTPError as error:
            if "CERTIFICATE" in str(error):
                self._tell(f"the ledger cannot be trusted: set DIMEE_TLS_CA ({error})")
            return False
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            self._tell(
                f"the ledger does not admit this process ({response.status_code}): put a token of "
                "it with the scope ledger:write into DIMEE_TOKEN or DIMEE_TOKEN_FILE"
            )
        if response.is_success:
            self._tell(None)
            self._outbox.mark_delivered([row[:3] for row in rows])
            return True
        if response.status_code not in (400, 413, 422):
            return False
        if len(rows) == 1:
            log.error("the ledger refuses entry %s (%s)", rows[0][0], response.status_code)
            self._outbox.quarantine(rows[0][0], rows[0][1])
            return True
        half = len(rows) // 2
        return self._send(rows[:half], timeout_s) and self._send(rows[half:], timeout_s)

    def _tell(self, trouble: str | None) -> None:
        """Log a trouble that somebody has to mend, once, and its end."""
        if trouble is not None and trouble != self._told:
            log.error("%s; until then entries stay in the outbox", trouble)
        elif trouble is None and self._told is not None:
            log.warning("the ledger admits this process again; the outbox is delivered")
        self._told = trouble
