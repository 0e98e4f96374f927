"""One tier's compute: a bounded queue before workers that batch what waits.

A worker never waits for a batch to fill: it takes its share of what has come in the meantime.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Protocol

from shared.domain import Prediction
from shared.errors import DeadlineExceeded, NotReady, Overloaded
from shared.inference.batch_selection import best_batch
from shared.inference.codec import ResumeLimits, decode
from shared.inference.layer_batcher import Row
from shared.inference.tokenizer import TextEncoder
from shared.tier_server.admission import Admission

READ_AHEAD = 8
"""How many batches of waiting texts are tokenised, so that rows of similar length are found."""
SMOOTHING = 0.1


@dataclass(frozen=True, slots=True)
class Computed:
    """A prediction with the milliseconds it waited and the milliseconds it took.

    ``compute_ms`` is the text's share of the layers' time, so that the sum over a batch is the
    time of the batch; ``queue_ms`` is the rest until it left: the queue, and its neighbours.
    ``resumed_after`` is the layer whose output it went on from; None: it started from the text.
    """

    prediction: Prediction
    tokens: int
    truncated: bool
    resumed_after: int | None
    queue_ms: float
    compute_ms: float


class BatchExecutor(Protocol):
    """A `shared.inference.layer_batcher.LayerBatcher`, here or in a process of its own."""

    max_rows: int
    max_tokens: int

    @property
    def idle(self) -> bool: ...
    @property
    def wants_rows(self) -> bool: ...
    @property
    def takes_early(self) -> bool: ...
    def admit(self, rows: Sequence[Row], yields: bool = False) -> None: ...
    def drop(self, gone: Set[Row]) -> None: ...
    def step(self) -> list[tuple[Row, Prediction | Exception]]: ...
    def wake(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Read:
    """A text or a state made ready for the layers."""

    row: Row
    tokens: int
    truncated: bool
    resumed_after: int | None


@dataclass(eq=False, slots=True)
class _Job:
    read: Callable[[], _Read]
    future: asyncio.Future[Computed]
    loop: asyncio.AbstractEventLoop
    arrived: float
    deadline_ms: float
    until: float
    ready: _Read | None = None


class Engine:
    """Keeps ``flows`` at work, batched with early exit, off the event loop.

    One worker and flow a core, each with layers that run in one thread alone: threads that share a
    layer wait for each other after every product, which costs more than it brings. A batch is small
    (the flows' ``max_rows`` and ``max_tokens``, padding included), because what a core works on
    should stay in its cache.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        flows: Sequence[BatchExecutor],
        alpha: float | None,
        max_queue: int,
        max_queue_ms: float | None = None,
    ) -> None:
        self._encoder = encoder
        self._flows = flows
        self._alpha = alpha
        self._admission = Admission(max_queue, max_queue_ms, len(flows))
        self._max_rows = max(flow.max_rows for flow in flows)
        self._max_tokens = max(flow.max_tokens for flow in flows)
        self._token_ms = 0.0
        self._jobs: list[_Job] = []
        self._closed = False
        self._idle = 0
        self.pending_admissions = 0
        """Admitted requests that are not in the queue yet, see `AdmissionTicket`."""
        self._changed = threading.Condition()
        self._choosing = threading.Lock()
        self._workers = [
            threading.Thread(target=self._work, args=[flow], name=f"flow-{number}", daemon=True)
            for number, flow in enumerate(flows)
        ]
        for worker in self._workers:
            worker.start()

    async def run(
        self, text: str, pair: str | None, deadline_ms: float, alpha: float | None = None
    ) -> Computed:
        """Answer one checked text, at the threshold ``alpha`` where the tier leaves early at all.

        Raises `Overloaded` at once where `Admission` says so, and `DeadlineExceeded` when the
        deadline passed before the work began: work that nobody waits for is not done.
        """

        def read() -> _Read:
            ids = self._encoder.ids(text, pair)
            row = Row(ids, 0, self._threshold(alpha))
            return _Read(row, len(ids), ids.truncated, None)

        return await self._queued(read, deadline_ms)

    async def resume(
        self, body: bytes, limits: ResumeLimits, deadline_ms: float, alpha: float | None = None
    ) -> Computed:
        """Answer from a hidden state with the layers after it; otherwise as `run`.

        Raises `InvalidInput` and `BundleMismatch` too, as `shared.inference.codec.decode` does.
        """

        def read() -> _Read:
            state = decode(body, limits)
            row = Row(state.hidden_TH, state.layer, self._threshold(alpha))
            return _Read(row, row.tokens, False, state.layer)

        return await self._queued(read, deadline_ms)

    def _threshold(self, asked: float | None) -> float | None:
        return self._alpha if self._alpha is None or asked is None else asked

    async def _queued(self, read: Callable[[], _Read], deadline_ms: float) -> Computed:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Computed] = loop.create_future()
        with self._changed:
            if self._closed:
                raise NotReady("the tier is closing; ask another")
            self._admission.check(len(self._jobs), deadline_ms)
            now = time.perf_counter()
            self._jobs.append(_Job(read, future, loop, now, deadline_ms, now + deadline_ms / 1e3))
        # after what else the loop has read: requests that come together should go together
        loop.call_soon(self._tell)
        return await future

    def _tell(self) -> None:
        with self._changed:
            if self._idle:
                self._changed.notify()
                return
        for flow in self._flows:
            if self._takes(flow):
                flow.wake()
                return

    @property
    def congested(self) -> bool:
        """Whether one that comes now, with time enough, would be refused. Only a glance."""
        return self._admission.congested(len(self._jobs) + self.pending_admissions)

    def refusal(self, deadline_ms: float) -> Overloaded | None:
        """The refusal of one that comes now; None where it is let in."""
        with self._changed:
            try:
                self._admission.check(len(self._jobs) + self.pending_admissions, deadline_ms)
            except Overloaded as error:
                return error
        return None

    def close(self) -> None:
        """Let running and waiting work end; take no more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()
        for flow in self._flows:
            flow.close()

    def _work(self, flow: BatchExecutor) -> None:
        under_way: dict[Row, _Job] = {}
        busy_since = 0.0
        while True:
            if self._takes(flow):
                if flow.idle:
                    if not self._await_jobs():
                        return
                    busy_since = time.perf_counter()
                batch = self._take()
                rows = {job.ready.row: job for job in batch if job.ready is not None}
                under_way |= rows
                if rows:
                    flow.admit(list(rows), yields=self._admission.overloaded)
                    self._count(len(rows))
            if flow.idle:
                continue
            done = [(row, under_way.pop(row), outcome) for row, outcome in flow.step()]
            if done:
                now = time.perf_counter()
                self._learn([row for row, _, _ in done], (now - busy_since) * 1e3)
                busy_since = now
                # last: who is answered asks again, and must not find itself still in hand
                _settle([(job, _outcome(job, outcome)) for _, job, outcome in done])
            gone = {row for row, job in under_way.items() if job.future.cancelled()}
            if gone:
                flow.drop(gone)
                for row in gone:
                    del under_way[row]
                self._count(-len(gone))

    def _takes(self, flow: BatchExecutor) -> bool:
        # early only for a full batch: what comes in the meantime would make a better one
        return flow.wants_rows or (flow.takes_early and len(self._jobs) >= self._max_rows)

    def _count(self, more: int) -> None:
        with self._changed:
            self._admission.under_way += more

    def _learn(self, rows: list[Row], busy_ms: float) -> None:
        with self._changed:
            for row in rows:
                self._token_ms += SMOOTHING * (row.compute_ms / row.tokens - self._token_ms)
            self._admission.learn(busy_ms, len(rows))
            self._admission.under_way -= len(rows)

    def _await_jobs(self) -> bool:
        """Whether there is work; False when closed and all is done."""
        with self._changed:
            while not self._jobs and not self._closed:
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            return bool(self._jobs)

    def _take(self) -> list[_Job]:
        """The next batch: the job whose deadline is nearest, and what goes well with it.

        May be empty: another worker was faster, or nobody waits for it any more.
        """
        with self._choosing:  # another worker's choice would be of the same jobs
            with self._changed:
                self._jobs.sort(key=attrgetter("until"))
                ahead = self._jobs[: READ_AHEAD * self._max_rows]
                share = -(-len(self._jobs) // len(self._workers))
            ready = [job for job in ahead if _is_ready(job)]
            batch = self._batch(ready, min(share, self._max_rows))
            finished = {*ahead} - ({*ready} - {*batch})
            with self._changed:
                self._jobs = [job for job in self._jobs if job not in finished]
        return batch

    def _batch(self, ready: list[_Job], most: int) -> list[_Job]:
        if not ready:
            return []
        first = ready[0]
        reads = [(job.ready, job) for job in ready if job.ready is not None]
        after = reads[0][0].resumed_after
        fitting = [(read.tokens, job) for read, job in reads if read.resumed_after == after]
        fitting.sort(key=itemgetter(0))
        lengths, jobs = [length for length, _ in fitting], [job for _, job in fitting]
        # the first must not miss its deadline for the sake of company
        left_ms = (first.until - time.perf_counter()) * 1e3
        room = min(self._max_tokens, int(left_ms / self._token_ms) if self._token_ms else 2**31)
        return [jobs[i] for i in best_batch(lengths, jobs.index(first), most, room)]


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


def _is_ready(job: _Job) -> bool:
    """Whether the job can go on; one that cannot is answered here and now."""
    if job.future.cancelled():
        return False
    waited_ms = (time.perf_counter() - job.arrived) * 1e3
    if waited_ms >= job.deadline_ms:
        late = DeadlineExceeded(
            f"the deadline of {job.deadline_ms:.0f} ms passed after {waited_ms:.0f} ms in the queue"
        )
        _settle([(job, late)])
        return False
    try:
        job.ready = job.ready or job.read()
    except Exception as error:  # a text that cannot be read fails alone
        _settle([(job, error)])
        return False
    return True


def _outcome(job: _Job, outcome: Prediction | Exception) -> Computed | Exception:
    if isinstance(outcome, Exception):
        return outcome
    assert job.ready is not None
    row = job.ready.row
    total_ms = (time.perf_counter() - job.arrived) * 1e3
    return Computed(
        prediction=outcome,
        tokens=job.ready.tokens,
        truncated=job.ready.truncated,
        resumed_after=job.ready.resumed_after,
        queue_ms=max(0.0, total_ms - row.compute_ms),
        compute_ms=row.compute_ms,
    )


def _settle(outcomes: list[tuple[_Job, Computed | Exception]]) -> None:
    """Wake each event loop once for all of its jobs: a wake-up costs more than an answer."""

    def settle(jobs: list[tuple[_Job, Computed | Exception]]) -> None:
        for job, outcome in jobs:
            if job.future.done():
                continue
            if isinstance(outcome, Exception):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)

    for loop in {job.loop for job, _ in outcomes}:
        with suppress(RuntimeError):  # it is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, [one for one in outcomes if one[0].loop is loop])
