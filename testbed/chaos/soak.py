"""Memory and p99 of the testbed under a steady load: ``python -m testbed.chaos.soak``."""

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
import httpx
import numpy as np
import psutil

from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from testbed.chaos.fault_injector import ROLES, Victim, resident_mb, victim
from testbed.chaos.schedules import DEADLINE_S, make_plan
from testbed.chaos.traffic import Outcome, flow
from testbed.load.texts import make_texts

SAMPLE_S = 10.0
SETTLES_S = 300.0
"""What memory does before is the warming up of caches and arenas."""
MOST_GROWTH = 0.05
MOST_DRIFT = 1.5
CAPACITY_S = 10.0


class Memory:
    """The resident memory of each process, every ``every_s`` until told to stop."""

    def __init__(self, bed: Victim, every_s: float) -> None:
        self._processes = {role: psutil.Process(bed.pid(role)) for role in ROLES}
        self._every_s = every_s
        self._over = threading.Event()
        self.rows: list[dict[str, float]] = []
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while True:
            row = {"at_s": round(time.monotonic() - self._started, 1)}
            for role, process in self._processes.items():
                row[role] = round(resident_mb(process), 1)
            self.rows.append(row)
            if self._over.wait(self._every_s):
                return

    def stop(self) -> None:
        """Take no more samples."""
        self._over.set()
        self._thread.join()


def growth(rows: Sequence[dict[str, float]], role: str, settles_s: float) -> float | None:
    """By what share memory grew from the minute after ``settles_s`` to the last minute."""
    later = [row for row in rows if row["at_s"] >= settles_s]
    if len(later) < 3:
        return None
    few = max(1, min(6, len(later) // 3))
    first = float(np.median([row[role] for row in later[:few]]))
    last = float(np.median([row[role] for row in later[-few:]]))
    return round(last / first - 1, 4)


def drift(minutes: Sequence[float]) -> float | None:
    """The median p99 of the last third of the minutes over that of the first third."""
    third = len(minutes) // 3
    if not third:
        return None
    return round(float(np.median(minutes[-third:]) / np.median(minutes[:third])), 3)


def capacity(url: str, seconds: float, workers: int = 16) -> float:
    """Requests a second that the mobile answers, by closed loop."""
    texts = make_texts(500, 0)

    async def ask() -> float:
        until, count = time.monotonic() + seconds, 0
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30.0) as http:

            async def work(number: int) -> None:
                nonlocal count
                while time.monotonic() < until:
                    body = {"texts": [texts[number % len(texts)]]}
                    response = await http.post("/v1/classify", json=body)
                    count += response.status_code == httpx.codes.OK
                    number += workers

            await asyncio.gather(*map(work, range(workers)))
        return count / seconds

    return asyncio.run(ask())


def by_minute(outcomes: Sequence[Outcome]) -> list[float]:
    """p99 of each minute's answers in ms."""
    minutes: dict[int, list[float]] = {}
    for one in outcomes:
        if one.status == httpx.codes.OK:
            minutes.setdefault(int(one.planned.at_s // 60), []).append(one.took_s * 1e3)
    return [round(float(np.percentile(took, 99)), 1) for _, took in sorted(minutes.items())]


@click.command()
@click.option("--minutes", default=30.0, show_default=True)
@click.option("--load", "share", default=0.7, show_default=True, help="Of the capacity.")
@click.option("--rate", type=float, help="Requests a second, instead of measuring the capacity.")
@click.option("--seed", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures there (JSON).")
def main(minutes: float, share: float, rate: float | None, seed: int, out: Path | None) -> None:
    """Exit 1 where memory grew by 5 % after the first five minutes, or p99 drifted by half."""
    seconds = minutes * 60
    settles_s = min(SETTLES_S, seconds / 2)
    with victim(seed, restart_after_s=1.0, hops=()) as bed:
        most = capacity(bed.bed.url, CAPACITY_S)
        asked = rate or most * share
        plan = make_plan(seed, seconds, asked)
        memory = Memory(bed, min(SAMPLE_S, seconds / 20))
        outcomes, _ = asyncio.run(flow(bed.bed.url, plan, DEADLINE_S))
        memory.stop()
        ledger = LedgerClient(bed.bed.ledger_url)
        clean = wait_for_consistent(ledger, 120, len(outcomes)).consistent
        ledger.close()
    grown = {role: growth(memory.rows, role, settles_s) for role in ROLES}
    p99s = by_minute(outcomes)
    found: dict[str, Any] = {
        "minutes": minutes,
        "capacity_rps": round(most, 1),
        "asked_rps": round(asked, 1),
        "requests": len(outcomes),
        "by_status": dict(Counter(str(one.status) for one in outcomes)),
        "growth_after_s": settles_s,
        "growth": grown,
        "p99_ms_by_minute": p99s,
        "p99_drift": drift(p99s),
        "verify_clean": clean,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "seed": seed,
    }
    if out is not None:
        text = json.dumps(found | {"memory_mb": memory.rows}, indent=1)
        out.write_text(text + "\n", encoding="utf-8")
    click.echo(json.dumps(found, indent=2))
    flat = all((one or 0.0) < MOST_GROWTH for one in grown.values())
    steady = (found["p99_drift"] or 1.0) < MOST_DRIFT
    sys.exit(0 if flat and steady and clean else 1)


if __name__ == "__main__":
    main()
