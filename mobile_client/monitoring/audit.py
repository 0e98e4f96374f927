"""Audits: a small share of answered requests is asked of the cloud as well, later, in batches."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from mobile_client.dispatch.attempts import AttemptRecorder, RoutedRequest
from mobile_client.monitoring.monitor_state import Note
from shared.domain import Reason, Tier
from shared.tier_client import TierClient
from shared.wire import Classification, InferRequest

log = logging.getLogger(__name__)

SEED = 0
QUEUE = 256
"""Audits that may wait; their texts are in memory only, and the oldest is dropped for a new one."""
BATCH = 16
EVERY_S = 5.0
"""Waiting audits are asked after this time, or as soon as there are a batch of them."""
AT_ONCE = 2
"""Audits under way at once: the cloud has requests to answer."""
TIMEOUT_S = 10.0


def drawn(number: int, share: float) -> bool:
    """Whether the request of this number is audited; the same for every process and start."""
    digest = hashlib.blake2b(f"{SEED}:{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


@dataclass(frozen=True, slots=True)
class Sample:
    """An answered request that was drawn, and its answer."""

    request: RoutedRequest
    label: str
    ordinal: int
    from_cloud: bool

    @classmethod
    def of(cls, request: RoutedRequest, answer: Classification) -> Sample:
        """An answer that the cloud gave to the text itself is the cloud's by definition."""
        last = answer.attempts[-1]
        from_cloud = answer.tier is Tier.CLOUD and last.resumed_after is None
        return cls(request, answer.label, len(answer.attempts) + 1, from_cloud)


class Auditor:
    """Asks the cloud of samples and notes each loss in the order of the requests.

    Also those that are the cloud's by definition wait in the queue: losses that came early because
    they are 0 would put the others together, and a betting test is of losses in their own order.
    Never raises; what fails is counted and forgotten.
    """

    def __init__(
        self,
        recorder: AttemptRecorder,
        cloud: TierClient,
        bundle_id: str,
        note: Callable[[Note], None],
    ) -> None:
        self._recorder = recorder
        self._cloud = cloud
        self._bundle_id = bundle_id
        self._note = note
        self._queue: deque[Sample] = deque()
        self._one = asyncio.Lock()
        self._some = asyncio.Event()
        self._batch = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Samples that were drawn and not yet asked."""
        return len(self._queue)

    def add(self, sample: Sample) -> None:
        """Take a sample for later. Called on the mobile's event loop."""
        if len(self._queue) >= QUEUE:
            self._queue.popleft()
            self._note(("dropped", 1))
        self._queue.append(sample)
        self._some.set()
        if len(self._queue) >= BATCH:
            self._batch.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="audits")

    def clear(self) -> None:
        """Drop what waits: its outcome would change nothing any more."""
        if self._queue:
            self._note(("dropped", len(self._queue)))
        self._queue.clear()

    async def drain(self) -> None:
        """Ask everything that waits now."""
        async with self._one:
            self._some.clear()
            self._batch.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                try:
                    losses = await asyncio.gather(*map(self._loss, batch), return_exceptions=True)
                except asyncio.CancelledError:
                    self._note(("failed", len(batch)))
                    raise
                for loss in losses:
                    self._note(("loss", loss) if isinstance(loss, int) else ("failed", 1))
                    if isinstance(loss, Exception):
                        log.error("an audit failed inside", exc_info=loss)

    async def close(self, flush_s: float) -> None:
        """Ask what waits within ``flush_s``; the rest is dropped, what is under way abandoned."""
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
            await self._some.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    await self._batch.wait()
            await self.drain()

    async def _loss(self, sample: Sample) -> int | None:
        """1 if the answer is not the cloud's; None if the cloud gave none."""
        if sample.from_cloud:
            return 0
        async with self._slots:
            self._note(("asked", 1))
            request = sample.request
            attempt = self._recorder.prepare(request, sample.ordinal, Tier.CLOUD, Reason.AUDIT)
            self._recorder.open(attempt)
            with self._recorder.ensure_closed(attempt):
                exchange = await self._cloud.infer(
                    InferRequest(
                        request_id=request.request_id,
                        attempt_id=attempt.entry.attempt_id,
                        ordinal=sample.ordinal,
                        deadline_ms=TIMEOUT_S * 1e3,
                        text=request.text,
                        pair=request.pair,
                        bundle_id=self._bundle_id,
                    ),
                    TIMEOUT_S,
                )
                self._recorder.close_unused(attempt, exchange)
        return None if exchange.answer is None else int(exchange.answer.label != sample.label)
