"""One tier's compute: a bounded queue before one worker, timed on both sides."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from shared.domain import Prediction
from shared.errors import DeadlineExceeded, Overloaded
from shared.runtime.classifier import Classifier
from shared.runtime.encoding import EncodedText


@dataclass(frozen=True, slots=True)
class Computed:
    """A prediction with the milliseconds it waited and the milliseconds it took."""

    prediction: Prediction
    encoded: EncodedText
    queue_ms: float
    compute_ms: float


class Engine:
    """Runs a `Classifier` off the event loop, one text after the other.

    One worker with the runtime's own threads: two would fight for the same cores.
    """

    def __init__(self, classifier: Classifier, alpha: float | None, max_queue: int) -> None:
        self._classifier = classifier
        self._alpha = alpha
        self._max_queue = max_queue
        self._waiting = 0
        self._compute_ms = 10.0
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="layers")

    async def run(
        self, text: str, pair: str | None, deadline_ms: float, alpha: float | None = None
    ) -> Computed:
        """Answer one checked text, at the threshold ``alpha`` where the tier leaves early at all.

        Raises `Overloaded` at once when the queue is full, and `DeadlineExceeded` when the
        deadline passed before the work began: work that nobody waits for is not done.
        """
        if self._waiting >= self._max_queue:
            wait_s = self._waiting * self._compute_ms / 1e3
            raise Overloaded(
                f"the queue is full ({self._max_queue} waiting); try again in {wait_s:.1f} s",
                limit=self._max_queue,
                retry_after_s=round(max(wait_s, 0.1), 1),
            )
        self._waiting += 1
        work = asyncio.get_running_loop().run_in_executor(
            self._worker, self._compute, text, pair, time.perf_counter(), deadline_ms, alpha
        )
        # counted until the work ends, also when its caller is cancelled
        work.add_done_callback(self._one_less)
        computed = await asyncio.shield(work)
        self._compute_ms += 0.1 * (computed.compute_ms - self._compute_ms)
        return computed

    def _one_less(self, _: asyncio.Future[Computed]) -> None:
        self._waiting -= 1

    def _compute(
        self,
        text: str,
        pair: str | None,
        arrived: float,
        deadline_ms: float,
        asked_alpha: float | None,
    ) -> Computed:
        started = time.perf_counter()
        queue_ms = (started - arrived) * 1e3
        if queue_ms >= deadline_ms:
            raise DeadlineExceeded(
                f"the deadline of {deadline_ms:.0f} ms passed after {queue_ms:.0f} ms in the queue"
            )
        encoded = self._classifier.encoder.encode(text, pair)
        alpha = self._alpha if self._alpha is None or asked_alpha is None else asked_alpha
        prediction = self._classifier.classify([encoded], alpha)[0]
        return Computed(prediction, encoded, queue_ms, (time.perf_counter() - started) * 1e3)

    def close(self) -> None:
        """Let running work end; take no more."""
        self._worker.shutdown(wait=True, cancel_futures=True)
