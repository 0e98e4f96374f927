"""Prometheus metrics of the ledger: deliveries, the database, reports and retention."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import Metric

from shared.errors import LedgerUnavailable
from shared.ledger.reports import StoreResult
from shared.ledger.server.settings import LedgerSettings
from shared.ledger.server.store import LedgerStore
from shared.serving.metrics import serve_metrics
from shared.telemetry.metrics import LATENCY_BUCKETS_S, ScrapedState, gauge, new_registry


class LedgerMetrics:
    """Counters of one ledger process. Thread-safe."""

    def __init__(self, registry: CollectorRegistry) -> None:
        entries = Counter(
            "dimee_ledger_entries_total",
            "Delivered entries: stored, already stored, or a different end of an ended attempt.",
            ("result",),
            registry=registry,
        )
        self._stored, self._duplicates, self._conflicts = (
            entries.labels(result) for result in ("stored", "duplicate", "conflict")
        )
        deliveries = Counter(
            "dimee_ledger_deliveries_total",
            "Batches of entries that were stored, or failed because the database did.",
            ("result",),
            registry=registry,
        )
        self._delivered, self._failed = (
            deliveries.labels(result) for result in ("stored", "failed")
        )
        self._store_s = Histogram(
            "dimee_ledger_store_seconds",
            "Time to check and store a batch of entries.",
            registry=registry,
            buckets=LATENCY_BUCKETS_S,
        )
        self._report_s = Histogram(
            "dimee_ledger_report_seconds",
            "Time to compute a report, with the wait for its turn.",
            ("report",),
            registry=registry,
            buckets=LATENCY_BUCKETS_S,
        )
        self._pruned = Counter(
            "dimee_ledger_pruned_requests_total",
            "Requests that retention removed.",
            registry=registry,
        )

    def store(self, store_batch: Callable[[], StoreResult]) -> StoreResult:
        """Store a batch, and count its entries."""
        started = time.perf_counter()
        try:
            result = store_batch()
        except LedgerUnavailable:
            self._failed.inc()
            raise
        self._store_s.observe(time.perf_counter() - started)
        self._delivered.inc()
        self._stored.inc(result.stored)
        self._duplicates.inc(result.duplicates - result.conflicts)
        self._conflicts.inc(result.conflicts)
        return result

    @contextmanager
    def report(self, name: str) -> Iterator[None]:
        """Measure the time of a report; ``name`` is that of the function that computes it."""
        with self._report_s.labels(name).time():
            yield

    def pruned(self, requests: int) -> None:
        """Count requests that retention removed."""
        self._pruned.inc(requests)


def install_metrics(app: FastAPI, store: LedgerStore, settings: LedgerSettings) -> LedgerMetrics:
    """Return the counters; add ``GET /metrics``, unless the settings switch it off."""
    registry = new_registry()
    metrics = LedgerMetrics(registry)
    if settings.metrics == "on":
        registry.register(ScrapedState(lambda: _database(store)))
        serve_metrics(app, registry)
    return metrics


def _database(store: LedgerStore) -> Iterable[Metric]:
    try:
        store.ping()
        size_bytes = store.size_bytes()
    except LedgerUnavailable:
        yield gauge("dimee_ready", "1 while the database answers.", 0)
    else:
        yield gauge("dimee_ready", "1 while the database answers.", 1)
        yield gauge("dimee_ledger_database_bytes", "Size of the database in bytes.", size_bytes)
    yield gauge(
        "dimee_ledger_write_failing",
        "1 if the last delivery could not be stored.",
        store.write_problem is not None,
    )
