"""Memory and latency under a steady load of many minutes: ``python -m testbed.chaos.soak``."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil

from shared.program import run_program
from testbed.chaos.fault_injector import ROLES, FaultInjector, resident_mb, start_fault_injector
from testbed.chaos.output import out_option, write_figures
from testbed.chaos.schedules import DEADLINE_S, make_plan
from testbed.chaos.traffic import Outcome, send_traffic
from testbed.load.generator import closed_loop
from testbed.load.http_client import HttpClient, run
from testbed.load.ledger_check import verify_ledger
from testbed.load.sample import PATH
from testbed.load.tally import percentile_ms
from testbed.load.texts import make_texts

SAMPLE_S = 10.0
WARM_UP_S = 300.0
"""Caches and memory arenas fill in the first minutes; their growth is not counted."""
MAX_GROWTH = 0.05
MAX_P99_RATIO = 1.5
CAPACITY_S = 10.0
CAPACITY_WORKERS = 16
VERIFY_S = 120.0


class MemorySampler:
    """Samples the resident memory of each role in a thread, every ``every_s`` seconds."""

    def __init__(self, injector: FaultInjector, every_s: float) -> None:
        self._processes = {role: psutil.Process(injector.pid(role)) for role in ROLES}
        self._every_s = every_s
        self._stopped = threading.Event()
        self.rows: list[dict[str, float]] = []
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def _sample(self) -> None:
        while True:
            row = {"at_s": round(time.monotonic() - self._started, 1)}
            for role, process in self._processes.items():
                row[role] = round(resident_mb(process), 1)
            self.rows.append(row)
            if self._stopped.wait(self._every_s):
                return

    def stop(self) -> None:
        """Stop sampling."""
        self._stopped.set()
        self._thread.join()


def memory_growth(rows: Sequence[dict[str, float]], role: str, warm_up_s: float) -> float | None:
    """Return the relative growth from the minute after the warm-up to the last minute."""
    later = [row for row in rows if row["at_s"] >= warm_up_s]
    if len(later) < 3:
        return None
    window = max(1, min(6, len(later) // 3))
    first = float(np.median([row[role] for row in later[:window]]))
    last = float(np.median([row[role] for row in later[-window:]]))
    return round(last / first - 1, 4)


def p99_ratio(minutes: Sequence[float]) -> float | None:
    """Return the median p99 of the last third of the minutes over that of the first third."""
    third = len(minutes) // 3
    if not third:
        return None
    return round(float(np.median(minutes[-third:]) / np.median(minutes[:third])), 3)


def gateway_capacity(url: str, seconds: float) -> float:
    """Return the requests a second that the gateway answers to `CAPACITY_WORKERS` callers."""
    bodies = [json.dumps({"texts": [text]}).encode() for text in make_texts(500, 0)]
    client = HttpClient(url, PATH)
    tally = run(closed_loop(client, lambda n: bodies[n % 500], CAPACITY_WORKERS, seconds))
    return tally.count(200) / tally.seconds


def p99_by_minute(outcomes: Sequence[Outcome]) -> list[float]:
    """Return p99 of the answers of each minute in ms."""
    minutes: dict[int, list[float]] = {}
    for outcome in outcomes:
        if outcome.status == 200:
            minutes.setdefault(int(outcome.planned.at_s // 60), []).append(outcome.latency_s)
    return [percentile_ms(latencies, 99) or 0.0 for _, latencies in sorted(minutes.items())]


@click.command()
@click.option("--minutes", default=30.0, show_default=True, help="Length of the run in minutes.")
@click.option(
    "--load", "share", default=0.7, show_default=True, help="Rate as a share of the capacity."
)
@click.option("--rate", type=float, help="Rate in requests a second, in place of --load.")
@click.option("--seed", default=1, show_default=True, help="Seed of arrivals and texts.")
@out_option
def main(minutes: float, share: float, rate: float | None, seed: int, out: Path | None) -> None:
    """Send a steady load, and measure memory and latency.

    Exit with 1 if memory grew by 5 % after the first five minutes, if the p99 latency grew by half,
    or if the ledger is not consistent.
    """
    seconds = minutes * 60
    warm_up_s = min(WARM_UP_S, seconds / 2)
    with start_fault_injector(seed, restart_after_s=1.0, hops=()) as injector:
        capacity = gateway_capacity(injector.target.url, CAPACITY_S)
        intended = rate or capacity * share
        plan = make_plan(seed, seconds, intended)
        memory = MemorySampler(injector, min(SAMPLE_S, seconds / 20))
        outcomes, _ = asyncio.run(send_traffic(injector.target.url, plan, DEADLINE_S))
        memory.stop()
        ledger = verify_ledger(injector.target.ledger_url, len(outcomes), VERIFY_S)
    growth = {role: memory_growth(memory.rows, role, warm_up_s) for role in ROLES}
    p99_ms = p99_by_minute(outcomes)
    figures: dict[str, Any] = {
        "minutes": minutes,
        "capacity_rps": round(capacity, 1),
        "intended_rps": round(intended, 1),
        "requests": len(outcomes),
        "by_status": dict(Counter(str(outcome.status) for outcome in outcomes)),
        "warm_up_s": warm_up_s,
        "growth": growth,
        "p99_ms_by_minute": p99_ms,
        "p99_ratio": p99_ratio(p99_ms),
        "ledger_consistent": ledger["consistent"],
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "seed": seed,
        "memory_mb": memory.rows,
    }
    write_figures(figures, out, only_in_file=("memory_mb",))
    memory_is_flat = all((share or 0.0) < MAX_GROWTH for share in growth.values())
    latency_is_flat = (figures["p99_ratio"] or 1.0) < MAX_P99_RATIO
    sys.exit(0 if memory_is_flat and latency_is_flat and ledger["consistent"] else 1)


if __name__ == "__main__":
    run_program(main)
