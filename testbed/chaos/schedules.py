"""Random faults by seed, with the invariants checked after each schedule.

``python -m testbed.chaos.schedules`` runs many schedules on one testbed, which is healed in
between. A seed gives the same faults, texts and arrivals each time; what a process does at the
moment of a fault still varies.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any

import click

from shared.domain import InputText
from shared.program import run_program
from shared.signals import raise_on_signals
from testbed.chaos.fault_injector import FaultInjector, start_fault_injector
from testbed.chaos.faults import FAULTS
from testbed.chaos.faults.fault_kind import FaultNotPossible
from testbed.chaos.invariants import violations
from testbed.chaos.output import out_option, write_figures
from testbed.chaos.traffic import Intervals, Outcome, send_traffic
from testbed.load.arrivals import FLAT, MAX_CHAOS_REQUESTS, poisson
from testbed.load.runner import Action, PlannedRequest
from testbed.load.texts import make_texts

POLICIES = (None, None, "mobile", "edge", "cloud")
DEADLINE_S = 2.0
RESTART_AFTER_S = 1.0
PER_TESTBED = 20
"""Number of schedules after which a new testbed is started."""


@dataclass(frozen=True, slots=True)
class TimedFault:
    """A fault of a kind in `FAULTS` at ``at_s``, undone after ``for_s`` seconds.

    ``name`` is a role, a layer process or a hop; ``spec`` is a variant of the kind.
    """

    at_s: float
    kind: str
    name: str
    for_s: float
    spec: str | None = None


def make_faults(seed: int, seconds: float) -> list[TimedFault]:
    """Draw three to six faults, each undone before the end; only restarts may take longer."""
    rng = random.Random(seed)
    weights = [kind.weight for kind in FAULTS.values()]
    faults = []
    for _ in range(rng.randint(3, 6)):
        at_s = round(rng.uniform(0.5, 0.7 * seconds), 2)
        for_s = round(rng.uniform(0.2, min(4.0, 0.25 * seconds)), 2)
        [name] = rng.choices(list(FAULTS), weights)
        kind = FAULTS[name]
        faults.append(TimedFault(at_s, name, rng.choice(kind.names), for_s, rng.choice(kind.specs)))
    return sorted(faults, key=lambda fault: fault.at_s)


def make_plan(seed: int, seconds: float, rate: float) -> list[PlannedRequest]:
    """Draw requests at ``rate`` a second, with random policies."""
    rng = random.Random(seed)
    times = poisson(rate, seconds, FLAT, seed, max_requests=MAX_CHAOS_REQUESTS)
    texts = make_texts(len(times), seed)
    return [
        PlannedRequest(at, InputText(text), rng.choice(POLICIES))
        for at, text in zip(times, texts, strict=True)
    ]


@dataclass
class Journal:
    """Record of what the faults of a schedule did."""

    mobile_down: list[tuple[float, float]] = field(default_factory=list)
    """Start and end (``time.monotonic``) of each time in which the mobile itself was down."""
    left_out: list[str] = field(default_factory=list)
    """A sentence for each fault that this machine does not allow."""


def hold_fault(injector: FaultInjector, fault: TimedFault, journal: Journal) -> None:
    """Inject a fault, keep it for its time, and undo it."""
    kind = FAULTS[fault.kind]
    since = time.monotonic()
    try:
        with kind.hold(injector, fault.name, fault.spec):
            if not kind.over_at_once:
                time.sleep(fault.for_s)
    except FaultNotPossible as error:
        journal.left_out.append(f"{fault.kind} {fault.name} was left out: {error.message}")
        return
    if fault.name == "mobile" and kind.stops_the_process:
        journal.mobile_down.append((since, time.monotonic()))


async def send_with_faults(
    injector: FaultInjector,
    seed: int,
    seconds: float,
    rate: float,
    faults: Sequence[TimedFault],
) -> tuple[list[Outcome], Intervals, list[str]]:
    """Send traffic while the faults are injected.

    Returns the outcomes, the intervals in which the mobile itself was down, and a sentence for each
    fault that this machine does not allow.
    """
    journal = Journal()
    actions = [
        Action(
            fault.at_s, f"{fault.kind} {fault.name}", partial(hold_fault, injector, fault, journal)
        )
        for fault in faults
    ]
    plan = make_plan(seed, seconds, rate)
    outcomes, started = await send_traffic(injector.target.url, plan, DEADLINE_S, actions)
    down = [(since - started, until - started) for since, until in journal.mobile_down]
    return outcomes, down, journal.left_out


def run_schedule(
    injector: FaultInjector,
    seed: int,
    seconds: float,
    rate: float,
    faults: Sequence[TimedFault] | None = None,
) -> dict[str, Any]:
    """Run the schedule of a seed, heal the testbed, and check the invariants."""
    began = time.monotonic()
    if faults is None:
        faults = make_faults(seed, seconds)
    outcomes, down, left_out = asyncio.run(send_with_faults(injector, seed, seconds, rate, faults))
    injector.heal()
    violated = violations(outcomes, injector.target.ledger_url, DEADLINE_S, down)
    if injector.footprint is not None:
        violated += injector.footprint.orphans()
    return {
        "seed": seed,
        "faults": [asdict(fault) for fault in faults],
        "requests": len(outcomes),
        "by_status": dict(Counter(str(outcome.status) for outcome in outcomes)),
        "mobile_down_s": round(sum(until - since for since, until in down), 2),
        "left_out": left_out,
        "violations": violated,
        "wall_s": round(time.monotonic() - began, 1),
    }


def run_all(seeds: Sequence[int], seconds: float, rate: float) -> list[dict[str, Any]]:
    """Run the schedules of all seeds; after a violation a new testbed is started.

    What a testbed leaves behind is a violation of the last schedule that ran on it.
    """
    runs: list[dict[str, Any]] = []
    waiting = list(seeds)
    while waiting:
        with start_fault_injector(waiting[0], RESTART_AFTER_S) as injector:
            for _ in range(min(PER_TESTBED, len(waiting))):
                run = run_schedule(injector, waiting.pop(0), seconds, rate)
                runs.append(run)
                click.echo(
                    f"seed {run['seed']}: {run['requests']} requests {run['by_status']} "
                    f"{'FAILED' if run['violations'] else 'passed'} ({run['wall_s']} s)",
                    err=True,
                )
                for line in (*run["left_out"], *run["violations"]):
                    click.echo(f"  {line}", err=True)
                if run["violations"]:
                    break
        runs[-1]["violations"] += injector.left_behind
        for line in injector.left_behind:
            click.echo(f"  seed {runs[-1]['seed']}: {line}", err=True)
    return runs


def run_in_parallel(
    seeds: Sequence[int], seconds: float, rate: float, testbeds: int
) -> list[dict[str, Any]]:
    """Run the schedules on several testbeds at once and return them sorted by seed.

    When this process ends, by a signal, an error or SIGKILL, all testbeds end.
    """
    parts = [seeds[number::testbeds] for number in range(testbeds)]
    with ProcessPoolExecutor(testbeds, initializer=_end_with_parent) as pool:
        futures = [pool.submit(run_all, part, seconds, rate) for part in parts if part]
        try:
            return sorted(
                (run for future in futures for run in future.result()), key=lambda run: run["seed"]
            )
        except BaseException:
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


def _end_with_parent() -> None:
    """End this worker, and with it its testbed, on SIGTERM and when its parent has ended."""
    raise_on_signals()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="watch parent", daemon=True).start()


@click.command()
@click.option("--count", default=200, show_default=True, help="Number of schedules.")
@click.option(
    "--seconds", default=20.0, show_default=True, help="Length of each schedule in seconds."
)
@click.option(
    "--seed",
    default=1,
    show_default=True,
    help="Seed of the first schedule; each later one is higher by 1.",
)
@click.option("--rate", default=10.0, show_default=True, help="Requests a second.")
@click.option("--testbeds", default=1, show_default=True, help="Number of testbeds at once.")
@out_option
def main(
    count: int, seconds: float, seed: int, rate: float, testbeds: int, out: Path | None
) -> None:
    """Inject random faults; exit with 1 and print the seeds where an invariant was violated."""
    began = time.monotonic()
    runs = run_in_parallel(range(seed, seed + count), seconds, rate, testbeds)
    failed = [run["seed"] for run in runs if run["violations"]]
    figures = {
        "schedules": len(runs),
        "seconds_each": seconds,
        "rate": rate,
        "testbeds": testbeds,
        "requests": sum(run["requests"] for run in runs),
        "faults": sum(len(run["faults"]) for run in runs),
        "faults_by_kind": dict(
            Counter(fault["kind"] for run in runs for fault in run["faults"]).most_common()
        ),
        "left_out": dict(Counter(line for run in runs for line in run["left_out"]).most_common(10)),
        "failed_seeds": failed,
        "wall_s": round(time.monotonic() - began, 1),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "runs": runs,
    }
    write_figures(figures, out, only_in_file=("runs",))
    if failed:
        click.echo(f"failed seeds: {failed}; repeat with: --count 1 --seed {failed[0]}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    run_program(main)
