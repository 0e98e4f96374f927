"""Engine of a tier: a bounded queue and workers that run the waiting texts in batches.

A worker does not wait for a full batch. It takes its share of the waiting texts.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter, itemgetter

from shared.domain import Prediction
from shared.errors import DeadlineExceeded, NotReady, Overloaded
from shared.inference.batch_selection import best_batch
from shared.inference.codec import ResumeLimits, decode
from shared.inference.layer_batcher import Row
from shared.inference.tokenizer import TextEncoder
from shared.rounding import shown_ms
from shared.tier_server.admission import Admission
from shared.tier_server.batch_executor import BatchExecutor
from shared.tier_server.engine_state import EngineState

LOOKAHEAD_BATCHES = 8
MAX_LOOKAHEAD = 512
"""Waiting texts that are tokenised beside the next batch, to find texts of similar length: those of
eight batches, but at most 512."""
DOWN = "no worker process can be started; the log of the tier says why"
SMOOTHING = 0.1
"""Weight of a new measurement in the moving average of the time per token."""


@dataclass(frozen=True, slots=True)
class Computed:
    """A prediction with its times.

    ``compute_ms`` is the text's share of the layers' time: the sum over a batch is the time of the
    batch. ``queue_ms`` is the rest of its time in the engine: the queue and the other texts of its
    batch. ``resumed_after`` is the layer whose output it started from, or None for a text.
    """

    prediction: Prediction
    tokens: int
    truncated: bool
    resumed_after: int | None
    queue_ms: float
    compute_ms: float


ChooseBatch = Callable[[Sequence[int], int, int, int], range]
"""Chooses a batch, as `shared.inference.batch_selection.best_batch` does."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A tokenised text or a decoded state."""

    row: Row
    tokens: int
    truncated: bool
    resumed_after: int | None


@dataclass(eq=False, slots=True)
class _Job:
    read: Callable[[], _Prepared]
    future: asyncio.Future[Computed]
    loop: asyncio.AbstractEventLoop
    arrived: float
    deadline_ms: float
    deadline: float
    prepared: _Prepared | None = None


class Engine:
    """Runs texts through ``executors`` in batches with early exit, off the event loop.

    Each executor has a worker thread and should have a core, with layers that run in one thread:
    threads that share a layer wait for each other after every product. Batches are small (the
    executors' ``max_rows`` and ``max_tokens``), so that their data fits in the core's cache.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        executors: Sequence[BatchExecutor],
        alpha: float | None,
        max_queue: int,
        max_queue_ms: float | None = None,
        choose: ChooseBatch = best_batch,
    ) -> None:
        self._encoder = encoder
        self._choose = choose
        self._executors = executors
        self._alpha = alpha
        self._admission = Admission(max_queue, max_queue_ms, len(executors))
        self._max_rows = max(executor.max_rows for executor in executors)
        self._max_tokens = max(executor.max_tokens for executor in executors)
        self._lookahead = self._max_rows + min(
            (LOOKAHEAD_BATCHES - 1) * self._max_rows, MAX_LOOKAHEAD
        )
        self._token_ms = 0.0
        self._jobs: list[_Job] = []
        self._closed = False
        self._computed_texts, self._busy_ms = 0, 0.0
        self._idle = 0
        self.pending_admissions = 0
        """Admitted requests that are not in the queue yet, see `AdmissionTicket`."""
        self._changed = threading.Condition()
        self._choosing = threading.Lock()
        self._workers = [
            threading.Thread(
                target=self._run_worker, args=[executor], name=f"worker-{number}", daemon=True
            )
            for number, executor in enumerate(executors)
        ]
        for worker in self._workers:
            worker.start()

    async def run(
        self, text: str, pair: str | None, deadline_ms: float, alpha: float | None = None
    ) -> Computed:
        """Answer one checked text; ``alpha`` replaces the threshold of a tier with early exit.

        Raise `Overloaded` at once if `Admission` refuses, and `DeadlineExceeded` if the deadline
        passes before the text is in a batch.
        """

        def read() -> _Prepared:
            ids = self._encoder.ids(text, pair)
            row = Row(ids, 0, self._threshold(alpha))
            return _Prepared(row, len(ids), ids.truncated, None)

        return await self._enqueue(read, deadline_ms)

    async def resume(
        self, body: bytes, limits: ResumeLimits, deadline_ms: float, alpha: float | None = None
    ) -> Computed:
        """Answer from an encoded hidden state with the layers after it; otherwise as `run`.

        Also raise `InvalidInput` and `BundleMismatch` as `shared.inference.codec.decode` does.
        """

        def read() -> _Prepared:
            state = decode(body, limits)
            row = Row(state.hidden_TH, state.layer, self._threshold(alpha))
            return _Prepared(row, row.tokens, False, state.layer)

        return await self._enqueue(read, deadline_ms)

    def _threshold(self, requested: float | None) -> float | None:
        return self._alpha if self._alpha is None or requested is None else requested

    async def _enqueue(self, read: Callable[[], _Prepared], deadline_ms: float) -> Computed:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Computed] = loop.create_future()
        with self._changed:
            if self._closed:
                raise NotReady("the tier is closing; send the request to another tier")
            self._admission.check(len(self._jobs), deadline_ms)
            now = time.perf_counter()
            self._jobs.append(_Job(read, future, loop, now, deadline_ms, now + deadline_ms / 1e3))
        # wake it after the event loop has handled the requests already read: they join the batch
        loop.call_soon(self._wake_worker)
        return await future

    def _wake_worker(self) -> None:
        with self._changed:
            if self._idle:
                self._changed.notify()
                return
        for executor in self._executors:
            if self._accepts_jobs(executor):
                executor.wake()
                return

    def state(self) -> EngineState:
        """Return the present state; it is read without the lock, for metrics."""
        waiting = len(self._jobs)
        return EngineState(
            waiting + self.pending_admissions,
            self._admission.in_progress,
            self._admission.wait_ms(waiting),
            self._admission.overloaded,
            dict(self._admission.refusals),
            self._computed_texts,
            self._busy_ms,
        )

    @property
    def down(self) -> bool:
        """True if no executor runs texts, and each one has failed to start again."""
        return all(executor.failed for executor in self._executors)

    @property
    def congested(self) -> bool:
        """True if a request without a deadline would be refused now, read without the lock."""
        return self._admission.congested(len(self._jobs) + self.pending_admissions)

    def refusal(self, deadline_ms: float) -> Overloaded | None:
        """Return the error for a request that arrives now, or None if it is accepted."""
        with self._changed:
            try:
                self._admission.check(len(self._jobs) + self.pending_admissions, deadline_ms)
            except Overloaded as error:
                return error
        return None

    def close(self) -> None:
        """Refuse new work, and return when running and waiting work has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()
        self._refuse_waiting("the tier is closing; send the request to another tier")
        for executor in self._executors:
            executor.close()

    def _run_worker(self, executor: BatchExecutor) -> None:
        in_progress: dict[Row, _Job] = {}
        busy_since = 0.0
        while True:
            if self._accepts_jobs(executor):
                if executor.idle:
                    if not self._await_jobs():
                        return
                    busy_since = time.perf_counter()
                batch = self._next_batch()
                rows = {job.prepared.row: job for job in batch if job.prepared is not None}
                in_progress |= rows
                if rows:
                    executor.admit(list(rows), low_priority=self._admission.overloaded)
                    self._add_in_progress(len(rows))
            if executor.idle and executor.accepts_rows:
                continue
            if executor.failed and self._closed:
                return
            done = [(row, in_progress.pop(row), outcome) for row, outcome in executor.step()]
            if done:
                now = time.perf_counter()
                self._observe([row for row, _, _ in done], (now - busy_since) * 1e3)
                busy_since = now
                # after the update: an answered client may send again at once
                _resolve([(job, _computed(job, outcome)) for _, job, outcome in done])
            cancelled = {row for row, job in in_progress.items() if job.future.cancelled()}
            if cancelled:
                executor.drop(cancelled)
                for row in cancelled:
                    del in_progress[row]
                self._add_in_progress(-len(cancelled))
            if self.down:
                self._refuse_waiting(DOWN)

    def _refuse_waiting(self, reason: str) -> None:
        with self._changed:
            waiting, self._jobs = self._jobs, []
        _resolve([(job, NotReady(reason)) for job in waiting])

    def _accepts_jobs(self, executor: BatchExecutor) -> bool:
        # in advance only if a full batch is waiting, because a partial one may still grow
        return executor.accepts_rows or (
            executor.accepts_next_batch and len(self._jobs) >= self._max_rows
        )

    def _add_in_progress(self, more: int) -> None:
        with self._changed:
            self._admission.in_progress += more

    def _observe(self, rows: list[Row], busy_ms: float) -> None:
        with self._changed:
            for row in rows:
                self._token_ms += SMOOTHING * (row.compute_ms / row.tokens - self._token_ms)
            self._admission.observe(busy_ms, len(rows))
            self._admission.in_progress -= len(rows)
            self._computed_texts += len(rows)
            self._busy_ms += busy_ms

    def _await_jobs(self) -> bool:
        """Wait for jobs; return False when the engine is closed and no job is left."""
        with self._changed:
            while not self._jobs and not self._closed:
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            return bool(self._jobs)

    def _next_batch(self) -> list[_Job]:
        """Remove and return the next batch: the most urgent job and others of similar length.

        It is empty if another worker took the jobs or their clients have disconnected.
        """
        with self._choosing:  # otherwise two workers could choose the same jobs
            with self._changed:
                self._jobs.sort(key=attrgetter("deadline"))
                most_urgent = self._jobs[: self._lookahead]
                share = -(-len(self._jobs) // len(self._workers))
            ready = [job for job in most_urgent if _prepare(job)]
            batch = self._choose_batch(ready, min(share, self._max_rows))
            finished = {*most_urgent} - ({*ready} - {*batch})
            with self._changed:
                self._jobs = [job for job in self._jobs if job not in finished]
        return batch

    def _choose_batch(self, ready: list[_Job], most: int) -> list[_Job]:
        if not ready:
            return []
        first = ready[0]
        reads = [(job.prepared, job) for job in ready if job.prepared is not None]
        after = reads[0][0].resumed_after
        fitting = [(read.tokens, job) for read, job in reads if read.resumed_after == after]
        fitting.sort(key=itemgetter(0))
        lengths, jobs = [length for length, _ in fitting], [job for _, job in fitting]
        # the first job must not miss its deadline because of the others
        left_ms = (first.deadline - time.perf_counter()) * 1e3
        room = min(self._max_tokens, int(left_ms / self._token_ms) if self._token_ms else 2**31)
        return [jobs[i] for i in self._choose(lengths, jobs.index(first), most, room)]


class AdmissionTicket:
    """Counts an admitted request as waiting until it is in the engine's queue."""

    def __init__(self, engine: Engine) -> None:
        self._engine: Engine | None = engine
        engine.pending_admissions += 1

    def release(self) -> None:
        """Stop counting the request: it is in the queue or has ended; idempotent."""
        if self._engine is not None:
            self._engine.pending_admissions -= 1
            self._engine = None


def _prepare(job: _Job) -> bool:
    """Prepare a job; return False after answering one that is late or invalid."""
    if job.future.cancelled():
        return False
    waited_ms = (time.perf_counter() - job.arrived) * 1e3
    if waited_ms >= job.deadline_ms:
        late = DeadlineExceeded(
            f"the deadline of {shown_ms(job.deadline_ms)} passed after {shown_ms(waited_ms)} in "
            "the queue"
        )
        _resolve([(job, late)])
        return False
    try:
        job.prepared = job.prepared or job.read()
    except Exception as error:  # only this text fails
        _resolve([(job, error)])
        return False
    return True


def _computed(job: _Job, outcome: Prediction | Exception) -> Computed | Exception:
    if isinstance(outcome, Exception):
        return outcome
    assert job.prepared is not None
    row = job.prepared.row
    total_ms = (time.perf_counter() - job.arrived) * 1e3
    return Computed(
        prediction=outcome,
        tokens=job.prepared.tokens,
        truncated=job.prepared.truncated,
        resumed_after=job.prepared.resumed_after,
        queue_ms=max(0.0, total_ms - row.compute_ms),
        compute_ms=row.compute_ms,
    )


def _resolve(outcomes: list[tuple[_Job, Computed | Exception]]) -> None:
    """Set the jobs' futures; each event loop is woken once, because a wake-up is expensive."""

    def resolve(jobs: list[tuple[_Job, Computed | Exception]]) -> None:
        for job, outcome in jobs:
            if job.future.done():
                continue
            if isinstance(outcome, Exception):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)

    for loop in {job.loop for job, _ in outcomes}:
        with suppress(RuntimeError):  # the loop is closed, and its callers no longer wait
            loop.call_soon_threadsafe(resolve, [pair for pair in outcomes if pair[0].loop is loop])
