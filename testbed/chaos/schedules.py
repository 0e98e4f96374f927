"""Random faults by seed, with the invariants checked after each schedule.

``python -m testbed.chaos.schedules`` runs many schedules on one testbed, which is healed in
between. A seed gives the same faults, texts and arrivals each time; what a process does at the
moment of a fault still varies.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from shared.domain import InputText
from testbed.chaos.fault_injector import (
    HOPS,
    LAYER_PROCESSES,
    ROLES,
    FaultInjector,
    start_fault_injector,
)
from testbed.chaos.invariants import violations
from testbed.chaos.output import out_option, write_figures
from testbed.chaos.traffic import Intervals, Outcome, send_traffic
from testbed.load.arrivals import FLAT, MAX_CHAOS_REQUESTS, poisson
from testbed.load.runner import Action, PlannedRequest
from testbed.load.texts import make_texts

POLICIES = (None, None, "mobile", "edge", "cloud")
BAD_LINKS = ("stall", "reset", "3g", "satellite", "lan,loss=0.2")
DEADLINE_S = 2.0
RESTART_AFTER_S = 1.0
PER_TESTBED = 20
"""Number of schedules after which a new testbed is started."""


@dataclass(frozen=True, slots=True)
class TimedFault:
    """A fault of `FaultInjector.inject` at ``at_s``, undone after ``for_s`` seconds.

    A killed process is restarted by the testbed.
    """

    at_s: float
    kind: str
    name: str
    for_s: float
    spec: str | None = None


def make_faults(seed: int, seconds: float) -> list[TimedFault]:
    """Draw three to six faults, each undone before the end; only restarts may take longer."""
    rng = random.Random(seed)
    faults = []
    for _ in range(rng.randint(3, 6)):
        at_s = round(rng.uniform(0.5, 0.7 * seconds), 2)
        for_s = round(rng.uniform(0.2, min(4.0, 0.25 * seconds)), 2)
        kind = rng.choice(("kill", "pause", "link", "link"))
        if kind == "link":
            faults.append(TimedFault(at_s, kind, rng.choice(HOPS), for_s, rng.choice(BAD_LINKS)))
        else:
            name = rng.choice((*ROLES, *LAYER_PROCESSES))
            faults.append(TimedFault(at_s, kind, name, for_s))
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


async def send_with_faults(
    injector: FaultInjector, seed: int, seconds: float, rate: float, faults: Sequence[TimedFault]
) -> tuple[list[Outcome], Intervals]:
    """Send traffic while the faults are injected.

    Returns the outcomes, and the intervals in which the mobile itself was down.
    """
    down: list[tuple[float, float]] = []

    def act(fault: TimedFault) -> None:
        since = time.monotonic()
        injector.inject(fault.kind, fault.name, fault.spec)
        if fault.kind == "kill":
            if fault.name == "mobile":
                injector.wait_ready("mobile")
        else:
            time.sleep(fault.for_s)
            injector.inject("link" if fault.kind == "link" else "continue", fault.name)
        if fault.name == "mobile":
            down.append((since, time.monotonic()))

    actions = [
        Action(fault.at_s, f"{fault.kind} {fault.name}", partial(act, fault)) for fault in faults
    ]
    plan = make_plan(seed, seconds, rate)
    outcomes, started = await send_traffic(injector.target.url, plan, DEADLINE_S, actions)
    return outcomes, [(since - started, until - started) for since, until in down]


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
    outcomes, down = asyncio.run(send_with_faults(injector, seed, seconds, rate, faults))
    injector.heal()
    violated = violations(outcomes, injector.target.ledger_url, DEADLINE_S, down)
    return {
        "seed": seed,
        "faults": [asdict(fault) for fault in faults],
        "requests": len(outcomes),
        "by_status": dict(Counter(str(outcome.status) for outcome in outcomes)),
        "mobile_down_s": round(sum(until - since for since, until in down), 2),
        "violations": violated,
        "wall_s": round(time.monotonic() - began, 1),
    }


def run_all(seeds: Sequence[int], seconds: float, rate: float) -> list[dict[str, Any]]:
    """Run the schedules of all seeds; after a violation a new testbed is started."""
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
                for violation in run["violations"]:
                    click.echo(f"  {violation}", err=True)
                if run["violations"]:
                    break
    return runs


def run_in_parallel(
    seeds: Sequence[int], seconds: float, rate: float, testbeds: int
) -> list[dict[str, Any]]:
    """Run the schedules on several testbeds at once and return them sorted by seed."""
    parts = [seeds[number::testbeds] for number in range(testbeds)]
    with ProcessPoolExecutor(testbeds) as pool:
        futures = [pool.submit(run_all, part, seconds, rate) for part in parts if part]
        return sorted(
            (run for future in futures for run in future.result()), key=lambda run: run["seed"]
        )


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
    main()
