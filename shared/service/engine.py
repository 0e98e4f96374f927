"""One tier's compute: a bounded queue before one worker, timed on both sides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from shared.codec import ResumeLimits, decode
from shared.domain import Prediction
from shared.errors import DeadlineExceeded, Overloaded
from shared.runtime.classifier import Classifier

_Done = tuple[Prediction, int, bool, int | None]
"""A prediction, the number of tokens, whether they were cut, and the layer gone on from."""


@dataclass(frozen=True, slots=True)
class Computed:
    """A prediction with the milliseconds it waited and the milliseconds it took.

    ``resumed_after`` is the layer whose output it went on from; None: it started from the text.
    """

    prediction: Prediction
    tokens: int
    truncated: bool
    resumed_after: int | None
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

        def work() -> _Done:
            encoded = self._classifier.encoder.encode(text, pair)
            prediction = self._classifier.classify([encoded], self._threshold(alpha))[0]
            return prediction, encoded.tokens, encoded.truncated, None

        return await self._queued(work, deadline_ms)

    async def resume(
        self, body: bytes, limits: ResumeLimits, deadline_ms: float, alpha: float | None = None
    ) -> Computed:
        """Answer from a hidden state with the layers after it; otherwise as `run`.

        Raises `InvalidInput` and `BundleMismatch` too, as `shared.codec.decode` does.
        """

        def work() -> _Done:
            state = decode(body, limits)
            threshold = self._threshold(alpha)
            prediction = self._classifier.resume(state.hidden_TH, state.layer, threshold)
            return prediction, state.tokens, False, state.layer

        return await self._queued(work, deadline_ms)

    def _threshold(self, asked: float | None) -> float | None:
        return self._alpha if self._alpha is None or asked is None else asked

    async def _queued(self, work: Callable[[], _Done], deadline_ms: float) -> Computed:
        if self._waiting >= self._max_queue:
            wait_s = self._waiting * self._compute_ms / 1e3
            raise Overloaded(
                f"the queue is full ({self._max_queue} waiting); try again in {wait_s:.1f} s",
                limit=self._max_queue,
                retry_after_s=round(max(wait_s, 0.1), 1),
            )
        self._waiting += 1
        done = asyncio.get_running_loop().run_in_executor(
            self._worker, _timed, work, time.perf_counter(), deadline_ms
        )
        # counted until the work ends, also when its caller is cancelled
        done.add_done_callback(self._one_less)
        computed = await asyncio.shield(done)
        self._compute_ms += 0.1 * (computed.compute_ms - self._compute_ms)
        return computed

    def _one_less(self, _: asyncio.Future[Computed]) -> None:
        self._waiting -= 1

    def close(self) -> None:
        """Let running work end; take no more."""
        self._worker.shutdown(wait=True, cancel_futures=True)


def _timed(work: Callable[[], _Done], arrived: float, deadline_ms: float) -> Computed:
    started = time.perf_counter()
    queue_ms = (started - arrived) * 1e3
    if queue_ms >= deadline_ms:
        raise DeadlineExceeded(
            f"the deadline of {deadline_ms:.0f} ms passed after {queue_ms:.0f} ms in the queue"
        )
    prediction, tokens, truncated, resumed_after = work()
    compute_ms = (time.perf_counter() - started) * 1e3
    return Computed(prediction, tokens, truncated, resumed_after, queue_ms, compute_ms)
