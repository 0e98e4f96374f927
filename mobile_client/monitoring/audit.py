"""Audits: compare a small share of the answers with the cloud's, in the background."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from mobile_client.dispatch.attempts import AttemptRecorder, RoutedRequest
from mobile_client.dispatch.spans import begin_exchange, end_exchange
from mobile_client.monitoring.monitor_state import Event
from shared.domain import Delivery, Reason, Tier
from shared.tier_client import INFER, Exchange, TierClient
from shared.wire import Classification, InferRequest

log = logging.getLogger(__name__)

SEED = 0
MAX_WAITING = 256
"""Largest number of waiting audits. Their texts are in memory only; the oldest is dropped."""
BATCH_AUDITS = 16
AUDIT_INTERVAL_S = 5.0
"""Waiting audits are sent after this many seconds, or as soon as a batch is complete."""
MAX_CONCURRENT = 2
"""Largest number of concurrent audits, so that requests keep most of the cloud's capacity."""
TIMEOUT_S = 10.0


def is_audited(number: int, share: float) -> bool:
    """Return whether to audit the request of this number; the same in every process."""
    digest = hashlib.blake2b(f"{SEED}:{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


@dataclass(frozen=True, slots=True)
class AuditSample:
    """An answered request to audit.

    ``from_cloud`` is True if the cloud gave the answer, from the text and not a hidden state.
    """

    request: RoutedRequest
    label: str
    ordinal: int
    from_cloud: bool

    @classmethod
    def of(cls, request: RoutedRequest, answer: Classification) -> AuditSample:
        """Return the sample of an answered request."""
        last = answer.attempts[-1]
        from_cloud = answer.tier is Tier.CLOUD and last.resumed_after is None
        return cls(request, answer.label, len(answer.attempts) + 1, from_cloud)


class Auditor:
    """Sends audit samples to the cloud and records each loss, in the order of the requests.

    Answers of the cloud have a loss of 0 without an audit. They wait in the queue like the others,
    because the sequential test needs the losses in the order of the requests. The auditor never
    raises: it counts a failed audit and drops it. ``choose_cloud`` returns the client of a replica,
    another one than that of its argument if there is one.
    """

    def __init__(
        self,
        recorder: AttemptRecorder,
        choose_cloud: Callable[[TierClient | None], TierClient],
        bundle_id: str,
        record_event: Callable[[Event], None],
    ) -> None:
        self._recorder = recorder
        self._choose_cloud = choose_cloud
        self._bundle_id = bundle_id
        self._record_event = record_event
        self._queue: deque[AuditSample] = deque()
        self._drain_lock = asyncio.Lock()
        self._not_empty = asyncio.Event()
        self._batch_ready = asyncio.Event()
        self._slots = asyncio.Semaphore(MAX_CONCURRENT)
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Number of samples that wait for their audit."""
        return len(self._queue)

    def add(self, sample: AuditSample) -> None:
        """Queue a sample. Call it on the mobile's event loop."""
        if len(self._queue) >= MAX_WAITING:
            self._queue.popleft()
            self._record_event(("dropped", 1))
        self._queue.append(sample)
        self._not_empty.set()
        if len(self._queue) >= BATCH_AUDITS:
            self._batch_ready.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="audits")

    def clear(self) -> None:
        """Drop all waiting samples."""
        if self._queue:
            self._record_event(("dropped", len(self._queue)))
        self._queue.clear()

    async def drain(self) -> None:
        """Audit all waiting samples now."""
        async with self._drain_lock:
            self._not_empty.clear()
            self._batch_ready.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(BATCH_AUDITS, len(self._queue)))]
                try:
                    losses = await asyncio.gather(*map(self._loss, batch), return_exceptions=True)
                except asyncio.CancelledError:
                    self._record_event(("failed", len(batch)))
                    raise
                for loss in losses:
                    self._record_event(("loss", loss) if isinstance(loss, int) else ("failed", 1))
                    if isinstance(loss, Exception):
                        log.error("an audit raised an unexpected error", exc_info=loss)

    async def close(self, flush_s: float) -> None:
        """Audit waiting samples for at most ``flush_s``, then drop and abandon the rest."""
        if flush_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(flush_s):
                    await self.drain()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.clear()

    async def _run(self) -> None:
        while True:
            await self._not_empty.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(AUDIT_INTERVAL_S):
                    await self._batch_ready.wait()
            await self.drain()

    async def _loss(self, sample: AuditSample) -> int | None:
        """Return 1 if the answer differs from the cloud's, else 0; None without a cloud answer."""
        if sample.from_cloud:
            return 0
        async with self._slots:
            self._record_event(("sent", 1))
            cloud = self._choose_cloud(None)
            exchange = await self._ask(cloud, sample, sample.ordinal)
            if exchange.reused_connection_broke:  # audits are minutes apart, and connections idle
                exchange = await self._ask(cloud, sample, sample.ordinal + 1, fresh=True)
            elif exchange.delivery is Delivery.NOT_SENT:
                other = self._choose_cloud(cloud)
                if other is not cloud:
                    exchange = await self._ask(other, sample, sample.ordinal + 1)
        return None if exchange.answer is None else int(exchange.answer.label != sample.label)

    async def _ask(
        self, cloud: TierClient, sample: AuditSample, ordinal: int, fresh: bool = False
    ) -> Exchange:
        request = sample.request
        attempt = self._recorder.prepare(request, ordinal, Tier.CLOUD, Reason.AUDIT)
        self._recorder.open(attempt)
        span = begin_exchange(attempt.trace, cloud.url, INFER, Tier.CLOUD)
        with self._recorder.ensure_closed(attempt):
            exchange = await cloud.infer(
                InferRequest(
                    request_id=request.request_id,
                    attempt_id=attempt.entry.attempt_id,
                    ordinal=ordinal,
                    deadline_ms=TIMEOUT_S * 1e3,
                    text=request.text,
                    pair=request.pair,
                    bundle_id=self._bundle_id,
                ),
                TIMEOUT_S,
                fresh_connection=fresh,
                trace=span,
            )
            end_exchange(span, exchange)
            self._recorder.close_unused(attempt, exchange)
        return exchange
