"""A tier at 80 %, 100 % and 1,000 % of its capacity: ``python -m testbed.chaos.overload``.

The client runs on the same cores unless it is told to ``--pin``, and the capacity is measured with
the same client. There is no ledger: entries go to the outbox and stay there.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from testbed.chaos.client import MakeBody, Tally, closed_loop, open_loop, run
from testbed.chaos.serve import serving
from testbed.load.arrivals import MOST_OF_CHAOS, poisson
from testbed.load.scenarios import FLAT
from testbed.load.texts import make_texts

PATH = b"/v1/infer"
RATES = {"at_80_percent": 0.8, "at_2_times": 2.0, "at_5_times": 5.0, "at_10_times": 10.0}
MODULES = {"edge": "edge_server", "cloud": "cloud_server"}


def make_body(tag: str, deadline_ms: float, seed: int) -> MakeBody:
    """Bodies of `PATH`, each an attempt of its own."""
    texts = [json.dumps(text) for text in make_texts(500, seed)]

    def body(number: int) -> bytes:
        return (
            f'{{"request_id": "{tag}-{number}", "attempt_id": "{tag}-{number}", '
            f'"deadline_ms": {deadline_ms:g}, "text": {texts[number % 500]}}}'
        ).encode()

    return body


def describe(tally: Tally, asked_rps: float | None = None) -> dict[str, Any]:
    """A run in numbers."""
    return {
        "asked_rps": None if asked_rps is None else round(asked_rps, 1),
        "sent": tally.total,
        "sent_rps": round(tally.total / tally.seconds, 1),
        "goodput_rps": round(tally.count(200) / tally.seconds, 1),
        "admitted_p50_ms": tally.ms(200, 50),
        "admitted_p99_ms": tally.ms(200, 99),
        "refused_share": round(tally.count(429) / max(tally.total, 1), 4),
        "refused_p50_ms": tally.ms(429, 50),
        "refused_p99_ms": tally.ms(429, 99),
        "by_status": {str(status): len(took) for status, took in sorted(tally.by_status.items())},
        "client_late_p50_ms": tally.late_ms(50),
        "client_late_p99_ms": tally.late_ms(99),
        "connections": tally.connections,
        "client_cores": round(tally.cpu_s / tally.seconds, 2),
        "load_average": [round(one, 2) for one in os.getloadavg()],
    }


async def measure(port: int, seconds: float, deadline_ms: float, seed: int) -> dict[str, Any]:
    """Capacity by closed loop, then shares and multiples of it by open loop."""
    warm = make_body("warm", deadline_ms, seed)
    await closed_loop(port, PATH, warm, 8, min(3.0, seconds))
    closed = await closed_loop(port, PATH, make_body("full", deadline_ms, seed), 16, seconds)
    capacity = closed.count(200) / closed.seconds
    found: dict[str, Any] = {"capacity_rps": round(capacity, 1), "closed": describe(closed)}
    for name, times in RATES.items():
        rate = capacity * times
        arrivals = poisson(rate, seconds, FLAT, seed, most_requests=MOST_OF_CHAOS)
        body = make_body(name, deadline_ms, seed)
        tally = await open_loop(port, PATH, body, arrivals, deadline_ms / 1e3 + 2)
        found[name] = describe(tally, rate)
        await asyncio.sleep(1.5)
        found[name]["goodput_of_capacity"] = round(found[name]["goodput_rps"] / capacity, 3)
        usual = found["at_80_percent"]["admitted_p99_ms"]
        if found[name]["admitted_p99_ms"] and usual:
            found[name]["p99_times"] = round(found[name]["admitted_p99_ms"] / usual, 2)
    return found


@click.command()
@click.option("--tier", type=click.Choice(sorted(MODULES)), default="edge", show_default=True)
@click.option("--seconds", default=20.0, show_default=True, help="Of each run.")
@click.option("--deadline-ms", default=2_000.0, show_default=True)
@click.option("--workers", type=int, help="Workers of the tier; its cores, by default.")
@click.option("--max-queue-ms", type=float, help="DIMEE_MAX_QUEUE_MS, if not the default.")
@click.option("--pin", is_flag=True, help="The tier on the first core, the client on the others.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures there (JSON).")
def main(
    tier: str,
    seconds: float,
    deadline_ms: float,
    workers: int | None,
    max_queue_ms: float | None,
    pin: bool,
    seed: int,
    out: Path | None,
) -> None:
    """Measure one tier's process; exit 1 where goodput or p99 is not what is promised."""
    settings = {"DIMEE_LEDGER_URL": "http://127.0.0.1:9"}
    if workers is not None:
        settings["DIMEE_WORKERS"] = str(workers)
    if max_queue_ms is not None:
        settings["DIMEE_MAX_QUEUE_MS"] = str(max_queue_ms)
    cores = sorted(os.sched_getaffinity(0))
    if pin and len(cores) < 2:
        raise click.UsageError("--pin needs two cores; leave it out")
    if pin:
        os.sched_setaffinity(0, cores[:1])  # the tier inherits it
    with serving(MODULES[tier], settings) as port:
        if pin:
            os.sched_setaffinity(0, cores[1:])
        found = run(measure(port, seconds, deadline_ms, seed))
    found |= {"tier": tier, "settings": settings, "seconds": seconds, "deadline_ms": deadline_ms}
    found |= {"cores": os.cpu_count(), "pinned": pin, "seed": seed}
    text = json.dumps(found, indent=2)
    click.echo(text)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    most = found["at_10_times"]
    kept = most["goodput_of_capacity"] >= 0.9 and most.get("p99_times", 99.0) < 2
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
