"""Figures of the last minute, from the attempts of this process as they end."""

from __future__ import annotations

import random
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from shared.domain import Reason, State, Tier
from shared.ledger.entry import LedgerEntry
from shared.ledger.request_list import RequestRecord, total_ms

WINDOW_S = 60
"""Seconds that the figures cover."""
RATE_S = 5
"""Seconds over which requests a second are counted."""
SAMPLES = 64
"""Most durations of each second that are kept for percentiles; of more, these are drawn."""
MAX_UNFINISHED = 4_096
"""Most requests whose attempts are kept until their end."""
MAX_FINISHED = 500
"""Most ended requests that are kept, for readers that connect again."""
PERCENTILES = (50, 95, 99)
HOPS = ("queue", "compute", "network")

T = TypeVar("T")
_followed: ContextVar[list[LedgerEntry] | None] = ContextVar("_followed", default=None)


@contextmanager
def follow_attempts() -> Iterator[list[LedgerEntry]]:
    """Collect the ended attempts of the requests that are made in the block, in this task."""
    entries: list[LedgerEntry] = []
    token = _followed.set(entries)
    try:
        yield entries
    finally:
        _followed.reset(token)


@dataclass(slots=True)
class Samples(Generic[T]):
    """At most `SAMPLES` of the values that were added, each of them with the same probability."""

    values: list[T] = field(default_factory=list)
    seen: int = 0

    def add(self, value: T) -> None:
        """Add a value."""
        self.seen += 1
        if len(self.values) < SAMPLES:
            self.values.append(value)
            return
        place = int(random.random() * self.seen)  # algorithm R (Vitter 1985)
        if place < SAMPLES:
            self.values[place] = value


@dataclass(slots=True)
class Second:
    """Requests and attempts that ended in one second of the clock."""

    number: int
    answered: Counter[Tier] = field(default_factory=Counter)
    failed: int = 0
    cost_lambda: float = 0.0
    all_cloud_lambda: float = 0.0
    cost_usd: float = 0.0
    total_ms: Samples[float] = field(default_factory=Samples)
    hops_ms: Samples[tuple[float, ...]] = field(default_factory=Samples)


@dataclass(frozen=True, slots=True)
class Finished:
    """An ended request: its number in this process, and the caller's entries of its attempts."""

    number: int
    entries: tuple[LedgerEntry, ...]

    @property
    def record(self) -> RequestRecord:
        """The request in short."""
        record = RequestRecord.of(self.entries)
        assert record is not None
        return record


class LiveStats:
    """Counts ended attempts and requests. Memory is bounded, whatever the traffic.

    Percentiles are exact below `SAMPLES` values a second. Audits are left out, as in the ledger's
    summary. For one event loop; ``clock`` returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: deque[Second] = deque(maxlen=WINDOW_S + 1)
        self._unfinished: OrderedDict[str, list[LedgerEntry]] = OrderedDict()
        self.finished: deque[Finished] = deque(maxlen=MAX_FINISHED)
        self.count = 0
        """Requests that have ended since the start."""

    def attempt_ended(self, entry: LedgerEntry) -> None:
        """Add the caller's entry of an attempt that has ended."""
        followed = _followed.get()
        if followed is not None:
            followed.append(entry)
        if entry.reason is Reason.AUDIT:
            return
        second = self._second()
        second.cost_lambda += entry.cost_lambda or 0.0
        second.cost_usd += entry.cost_usd or 0.0
        answered = entry.state is State.ANSWERED
        if answered:
            second.hops_ms.add(
                (entry.queue_ms or 0.0, entry.compute_ms or 0.0, entry.network_ms or 0.0)
            )
        earlier = self._unfinished.pop(entry.request_id, None)
        if not entry.final:
            self._unfinished[entry.request_id] = [*(earlier or ()), entry]
            if len(self._unfinished) > MAX_UNFINISHED:
                self._unfinished.popitem(last=False)
            return
        entries = (entry,) if earlier is None else (*earlier, entry)
        self.count += 1
        self.finished.append(Finished(self.count, entries))
        second.all_cloud_lambda += entry.all_cloud_lambda or 0.0
        if answered:
            second.answered[entry.tier] += 1
            first = entry if earlier is None else min(entries, key=lambda one: one.ordinal)
            second.total_ms.add(total_ms(first, entry))
        else:
            second.failed += 1

    def _second(self) -> Second:
        number = int(self._clock())
        if not self._seconds or self._seconds[-1].number != number:
            self._seconds.append(Second(number))
        return self._seconds[-1]

    def snapshot(self) -> dict[str, object]:
        """Return the figures of the last `WINDOW_S` seconds."""
        now = int(self._clock())
        window = [one for one in self._seconds if now - one.number < WINDOW_S]
        recent = [one for one in window if now - RATE_S <= one.number < now]
        answered: Counter[Tier] = sum((one.answered for one in window), Counter())
        count, failed = answered.total(), sum(one.failed for one in window)
        hops = [one.hops_ms for one in window]
        columns = list(zip(*(row for samples in hops for row in samples.values), strict=True))
        ended = sum(one.answered.total() + one.failed for one in recent)
        return {
            "requests_per_s": ended / RATE_S,
            "answered": count,
            "failed": failed,
            "shares": {tier.value: answered[tier] / count if count else 0.0 for tier in Tier},
            "total_ms": percentiles([value for one in window for value in one.total_ms.values]),
            "hops_ms": {
                hop: percentiles(columns[number] if columns else ())
                for number, hop in enumerate(HOPS)
            },
            "cost_lambda": sum(one.cost_lambda for one in window),
            "all_cloud_lambda": sum(one.all_cloud_lambda for one in window),
            "cost_usd": sum(one.cost_usd for one in window),
        }


def percentiles(values: Iterable[float]) -> dict[str, float | None]:
    """Return the percentiles by name, None without values."""
    numbers = np.fromiter(values, float)
    if not len(numbers):
        return {f"p{percent}": None for percent in PERCENTILES}
    found = np.percentile(numbers, PERCENTILES)
    return {f"p{percent}": float(value) for percent, value in zip(PERCENTILES, found, strict=True)}
