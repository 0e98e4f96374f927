"""Random faults by seed, and the checks after each: ``python -m testbed.chaos.schedules``.

Several schedules share one testbed, healed in between; a seed gives the same faults at the same
times each time, though not the same moment of every process.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from shared.ledger.client import LedgerClient
from testbed.chaos.fault_injector import HOPS, LAYERS, ROLES, Victim, victim
from testbed.chaos.invariants import broken
from testbed.chaos.traffic import Action, Outcome, Planned, flow
from testbed.load.arrivals import MOST_OF_CHAOS, poisson
from testbed.load.scenarios import FLAT
from testbed.load.texts import make_texts

POLICIES = (None, None, "mobile", "edge", "cloud")
BAD_LINKS = ("cut", "refuse", "3g", "satellite", "lan,loss=0.2")
DEADLINE_S = 2.0
REVIVE_S = 1.0
SHARED = 20
"""How many schedules share a testbed."""


@dataclass(frozen=True, slots=True)
class Fault:
    """At ``at_s``: ``kill`` or ``pause`` a role, or make a ``link`` bad; for ``for_s`` seconds."""

    at_s: float
    what: str
    name: str
    for_s: float
    words: str | None = None


def make_faults(seed: int, seconds: float) -> list[Fault]:
    """Three to six faults, all of them over before the end but for a kill's revival."""
    dice = random.Random(seed)
    faults = []
    for _ in range(dice.randint(3, 6)):
        at_s = round(dice.uniform(0.5, 0.7 * seconds), 2)
        for_s = round(dice.uniform(0.2, min(4.0, 0.25 * seconds)), 2)
        what = dice.choice(("kill", "pause", "link", "link"))
        if what == "link":
            faults.append(Fault(at_s, what, dice.choice(HOPS), for_s, dice.choice(BAD_LINKS)))
        else:
            faults.append(Fault(at_s, what, dice.choice((*ROLES, *LAYERS)), for_s))
    return sorted(faults, key=lambda fault: fault.at_s)


def make_plan(seed: int, seconds: float, rate: float) -> list[Planned]:
    """Requests by every policy."""
    dice = random.Random(seed)
    times = poisson(rate, seconds, FLAT, seed, most_requests=MOST_OF_CHAOS)
    texts = make_texts(len(times), seed)
    return [Planned(at, text, dice.choice(POLICIES)) for at, text in zip(times, texts, strict=True)]


async def run_schedule(
    bed: Victim, seed: int, seconds: float, rate: float, faults: Sequence[Fault]
) -> tuple[list[Outcome], list[tuple[float, float]]]:
    """The outcomes, and from when to when the mobile itself was gone."""
    gone: list[tuple[float, float]] = []

    def act(fault: Fault) -> None:
        since = time.monotonic()
        bed.do(fault.what, fault.name, fault.words)
        if fault.what == "kill":
            if fault.name == "mobile":
                bed.wait_ready("mobile")
        else:
            time.sleep(fault.for_s)
            bed.do("link" if fault.what == "link" else "go-on", fault.name)
        if fault.name == "mobile":
            gone.append((since, time.monotonic()))

    actions = [
        Action(fault.at_s, fault.what, lambda fault=fault: act(fault))  # type: ignore[misc]
        for fault in faults
    ]
    plan = make_plan(seed, seconds, rate)
    outcomes, started = await flow(bed.bed.url, plan, DEADLINE_S, actions)
    return outcomes, [(since - started, until - started) for since, until in gone]


def try_schedule(
    bed: Victim, seed: int, seconds: float, rate: float, faults: Sequence[Fault] | None = None
) -> dict[str, Any]:
    """Run one schedule, heal, and say what does not hold."""
    began = time.monotonic()
    if faults is None:
        faults = make_faults(seed, seconds)
    outcomes, gone = asyncio.run(run_schedule(bed, seed, seconds, rate, faults))
    bed.heal()
    ledger = LedgerClient(bed.bed.ledger_url)
    said = broken(outcomes, ledger, DEADLINE_S, gone)
    ledger.close()
    return {
        "seed": seed,
        "faults": [asdict(fault) for fault in faults],
        "requests": len(outcomes),
        "by_status": dict(Counter(str(one.status) for one in outcomes)),
        "mobile_gone_s": round(sum(until - since for since, until in gone), 2),
        "broken": said,
        "wall_s": round(time.monotonic() - began, 1),
    }


def run_all(seeds: Sequence[int], seconds: float, rate: float) -> list[dict[str, Any]]:
    """Every seed; what fails is printed with its seed and gets a fresh testbed after it."""
    found: list[dict[str, Any]] = []
    waiting = list(seeds)
    while waiting:
        with victim(waiting[0], REVIVE_S) as bed:
            for _ in range(min(SHARED, len(waiting))):
                one = try_schedule(bed, waiting.pop(0), seconds, rate)
                found.append(one)
                click.echo(
                    f"seed {one['seed']}: {one['requests']} requests {one['by_status']} "
                    f"{'FAILED' if one['broken'] else 'holds'} ({one['wall_s']} s)",
                    err=True,
                )
                for said in one["broken"]:
                    click.echo(f"  {said}", err=True)
                if one["broken"]:
                    break
    return found


def run_beside(
    seeds: Sequence[int], seconds: float, rate: float, beds: int
) -> list[dict[str, Any]]:
    """The same on several testbeds at once, each with every ``beds``-th seed."""
    parts = [seeds[number::beds] for number in range(beds)]
    with ProcessPoolExecutor(beds) as pool:
        found = [pool.submit(run_all, part, seconds, rate) for part in parts if part]
        return sorted((one for part in found for one in part.result()), key=lambda one: one["seed"])


@click.command()
@click.option("--count", default=200, show_default=True)
@click.option("--seconds", default=20.0, show_default=True, help="Of each schedule.")
@click.option("--seed", default=1, show_default=True, help="The first; the others follow it.")
@click.option("--rate", default=10.0, show_default=True, help="Requests a second.")
@click.option("--beds", default=1, show_default=True, help="Testbeds at once.")
@click.option("--out", type=click.Path(path_type=Path), help="Write all of it there (JSON).")
def main(count: int, seconds: float, seed: int, rate: float, beds: int, out: Path | None) -> None:
    """Break the testbed at random; exit 1 and name the seeds where an invariant did not hold."""
    began = time.monotonic()
    found = run_beside(range(seed, seed + count), seconds, rate, beds)
    failed = [one["seed"] for one in found if one["broken"]]
    report = {
        "schedules": len(found),
        "seconds_each": seconds,
        "rate": rate,
        "beds": beds,
        "requests": sum(one["requests"] for one in found),
        "faults": sum(len(one["faults"]) for one in found),
        "failed_seeds": failed,
        "wall_s": round(time.monotonic() - began, 1),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "runs": found,
    }
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    click.echo(json.dumps({name: value for name, value in report.items() if name != "runs"}))
    if failed:
        click.echo(f"failed seeds: {failed}; again: --count 1 --seed {failed[0]}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
