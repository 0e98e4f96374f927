"""Prometheus metrics of edge and cloud: attempts, queue, admission and worker processes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from fastapi import FastAPI
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from shared.domain import State
from shared.inference.process_batcher import ProcessBatcher
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox_metrics import outbox_families
from shared.serving.metrics import serve_metrics
from shared.settings import TierSettings
from shared.telemetry.metrics import (
    ENDS,
    ScrapedState,
    counter,
    gauge,
    labelled,
    new_registry,
)
from shared.telemetry.totals import Batch, Durations, histogram
from shared.tier_server.service import TierService


class TierAttempts:
    """Totals of one tier's attempts. For use in one event loop."""

    def __init__(self, tier: str) -> None:
        self._tier = tier
        self._results = dict.fromkeys(ENDS, 0)
        self._exits: Counter[int] = Counter()
        self._queue, self._compute, self._total = Durations(), Durations(), Durations()
        self._batch = Batch(self._count)

    def attempt_ended(self, entry: LedgerEntry) -> None:
        """Count an attempt by the tier's entry."""
        self._batch.add(entry)

    def _count(self, entry: LedgerEntry) -> None:
        self._results[entry.state] += 1
        if entry.state is State.ANSWERED and entry.exit_layer is not None:
            self._exits[entry.exit_layer] += 1
            self._queue.add((entry.queue_ms or 0.0) / 1e3)
            self._compute.add((entry.compute_ms or 0.0) / 1e3)
            self._total.add((entry.tier_ms or 0.0) / 1e3)

    def families(self) -> Iterable[Metric]:
        """Yield the metrics of all attempts that have ended."""
        self._batch.flush()
        yield labelled(
            CounterMetricFamily(
                "dimee_tier_attempts_total",
                "Attempts that ended at this tier, by result.",
                labels=("tier", "result"),
            ),
            {(self._tier, state.value): count for state, count in self._results.items()},
        )
        yield labelled(
            CounterMetricFamily(
                "dimee_tier_answers_total",
                "Attempts that this tier answered, by the layer at which they stopped.",
                labels=("tier", "exit_layer"),
            ),
            {(self._tier, str(layer)): count for layer, count in self._exits.items()},
        )
        for name, meaning, durations in (
            (
                "queue",
                "Time of an answered attempt in the queue and in shared batches.",
                self._queue,
            ),
            ("compute", "An answered attempt's share of the layers' time.", self._compute),
            ("total", "Time of an answered attempt at this tier.", self._total),
        ):
            yield histogram(
                f"dimee_tier_{name}_seconds", meaning, ("tier",), {(self._tier,): durations}
            )


def install_metrics(app: FastAPI, service: TierService, settings: TierSettings) -> None:
    """Add ``GET /metrics`` to a tier's application, unless the settings switch it off."""
    if settings.metrics == "off":
        return
    registry = new_registry()
    attempts = TierAttempts(service.tier.value)
    service.on_end = attempts.attempt_ended
    registry.register(ScrapedState(lambda: outbox_families(service.outbox, service.shipper)))
    registry.register(ScrapedState(lambda: worker_families(service.workers)))
    serve_metrics(app, registry, lambda: [*attempts.families(), *_state(service, settings)])


def _state(service: TierService, settings: TierSettings) -> Iterable[Metric]:
    engine = service.engine.state()
    ready = service.ready and service.outbox_report().recording != "refused"
    yield gauge("dimee_ready", "1 while the service accepts requests.", ready)
    yield gauge("dimee_queue_length", "Requests that wait in the queue.", engine.waiting)
    yield gauge("dimee_queue_limit", "Requests that may wait in the queue.", settings.max_queue)
    yield gauge(
        "dimee_queue_expected_wait_seconds",
        "Expected wait of a new request in seconds.",
        engine.expected_wait_ms / 1e3,
    )
    yield gauge("dimee_texts_in_progress", "Texts that workers run now.", engine.in_progress)
    yield gauge(
        "dimee_overloaded",
        "1 if the queue's length caused a refusal within the last second.",
        engine.overloaded,
    )
    yield labelled(
        CounterMetricFamily(
            "dimee_admission_refusals_total",
            "Requests refused because they would wait too long, by the limit that they met.",
            labels=("reason",),
        ),
        {(reason,): count for reason, count in engine.refusals.items()},
    )
    yield counter(
        "dimee_computed_texts_total", "Texts that workers finished.", engine.computed_texts
    )
    yield counter(
        "dimee_busy_seconds_total",
        "Time in which workers had texts to run, summed over the workers.",
        engine.busy_ms / 1e3,
    )


def worker_families(workers: Sequence[ProcessBatcher]) -> Iterable[Metric]:
    """Yield the metrics of the processes that run layers; reads ``/proc``."""
    yield gauge("dimee_workers", "Worker processes that run layers.", len(workers))
    cpu_s: dict[tuple[str, ...], float] = {}
    memory_bytes: dict[tuple[str, ...], float] = {}
    for number, worker in enumerate(workers):
        with suppress(OSError):  # it has just ended
            cpu_s[str(number),], memory_bytes[str(number),] = _usage(worker.pid)
    alive: dict[tuple[str, ...], float] = {
        (str(n),): float((str(n),) in cpu_s) for n in range(len(workers))
    }
    restarts: dict[tuple[str, ...], float] = {
        (str(n),): float(worker.restarts) for n, worker in enumerate(workers)
    }
    label = ("worker",)
    yield labelled(
        GaugeMetricFamily("dimee_worker_up", "1 while the worker process runs.", labels=label),
        alive,
    )
    yield labelled(
        CounterMetricFamily(
            "dimee_worker_restarts_total", "Replacements of a worker that ended.", labels=label
        ),
        restarts,
    )
    yield labelled(
        CounterMetricFamily(
            "dimee_worker_cpu_seconds_total",
            "CPU time of the present worker process in seconds.",
            labels=label,
        ),
        cpu_s,
    )
    yield labelled(
        GaugeMetricFamily(
            "dimee_worker_resident_memory_bytes",
            "Resident memory of the worker process in bytes.",
            labels=label,
        ),
        memory_bytes,
    )


def _usage(pid: int) -> tuple[float, float]:
    """Return a process's CPU seconds and resident bytes (proc(5)); raises `OSError`."""
    # the second field, the command's name in parentheses, may contain spaces
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if fields[0] == "Z":
        raise ProcessLookupError(pid)
    user, system, resident_pages = int(fields[11]), int(fields[12]), int(fields[21])
    return (user + system) / os.sysconf("SC_CLK_TCK"), resident_pages * os.sysconf("SC_PAGE_SIZE")
