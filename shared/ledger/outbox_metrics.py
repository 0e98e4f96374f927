"""Metrics of a process's outbox: entries that wait on disk, and their delivery."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress

from prometheus_client.core import Metric

from shared.ledger.outbox import Outbox
from shared.ledger.recording_state import MB
from shared.ledger.shipper import Shipper
from shared.ledger.undelivered import MAX_COUNTED
from shared.telemetry.metrics import counter, gauge


def outbox_families(outbox: Outbox, shipper: Shipper) -> Iterable[Metric]:
    """Yield the metrics of an outbox; reads its file, so that no event loop should call it."""
    report = outbox.report()
    yield gauge(
        "dimee_outbox_refusing",
        "1 while no entry can be recorded and no request is answered.",
        report.recording == "refused",
    )
    yield gauge(
        "dimee_outbox_used_bytes", "Size of the outbox on disk in bytes.", report.used_mb * MB
    )
    if report.max_mb is not None:
        yield gauge(
            "dimee_outbox_limit_bytes",
            "Size in bytes at which entries are refused.",
            report.max_mb * MB,
        )
    yield counter(
        "dimee_outbox_dropped_entries_total",
        "Ends of refused attempts that are lost.",
        report.dropped,
    )
    yield gauge(
        "dimee_ledger_delivery_failing_seconds",
        "Seconds since the first of the deliveries that fail now; 0 if the last one succeeded.",
        shipper.failing_s(),
    )
    yield gauge(
        "dimee_outbox_rejected_entries",
        "Entries that the ledger refused for good; they stay on disk.",
        shipper.rejected_entries,
    )
    with suppress(sqlite3.Error):  # a damaged or removed file; the gauge above shows it
        yield gauge(
            "dimee_outbox_entries",
            f"Entries that wait for the ledger, at most {MAX_COUNTED} are counted.",
            outbox.count_pending(MAX_COUNTED),
        )
        yield gauge(
            "dimee_outbox_oldest_entry_age_seconds",
            "Age in seconds of the entry that has waited longest; 0 if none waits.",
            oldest_age_s(outbox),
        )


def oldest_age_s(outbox: Outbox) -> float:
    """Return the age in seconds of the entry that has waited longest; 0 if none waits."""
    for *_, body in outbox.pending(1):
        started_at = json.loads(body).get("started_at")
        if isinstance(started_at, int | float):
            return max(0.0, time.time() - started_at)
    return 0.0
