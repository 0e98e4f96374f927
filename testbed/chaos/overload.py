"""Overload of one tier: ``python -m testbed.chaos.overload``.

The tier runs at 80 % of its capacity and at 2, 5 and 10 times it. The client shares the tier's
cores unless ``--pin`` is given; the capacity is measured with the same client. There is no
ledger: entries stay in the outbox.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from shared.program import run_program
from testbed.chaos.output import out_option, write_figures
from testbed.load.arrivals import FLAT, MAX_CHAOS_REQUESTS, poisson
from testbed.load.generator import MakeBody, closed_loop, open_loop
from testbed.load.http_client import HttpClient, run
from testbed.load.tally import Tally
from testbed.load.texts import make_texts
from testbed.processes.ports import free_ports
from testbed.processes.processes import Role, Testbed
from testbed.processes.temporary import temporary_folder

PATH = "/v1/infer"
TEXTS = 500
RATES = {"at_80_percent": 0.8, "at_2_times": 2.0, "at_5_times": 5.0, "at_10_times": 10.0}
MODULES = {"edge": "edge_server", "cloud": "cloud_server"}
CLIENTS = 16
PAUSE_S = 1.5
"""Pause after each run, in which an overloaded tier recovers."""
MIN_GOODPUT = 0.9
MAX_P99_RATIO = 2.0


def tier_client(port: int) -> HttpClient:
    """Return a client for `PATH` of a tier on loopback."""
    return HttpClient(f"http://127.0.0.1:{port}", PATH)


def infer_body(tag: str, deadline_ms: float, seed: int) -> MakeBody:
    """Return a function that makes bodies for `PATH`, each with ids of its own."""
    texts = [json.dumps(text) for text in make_texts(TEXTS, seed)]

    def body(number: int) -> bytes:
        return (
            f'{{"request_id": "{tag}-{number}", "attempt_id": "{tag}-{number}", '
            f'"deadline_ms": {deadline_ms:g}, "text": {texts[number % TEXTS]}}}'
        ).encode()

    return body


def describe(tally: Tally, intended_rps: float | None = None) -> dict[str, Any]:
    """Return the figures of a run: rates a second, latencies in ms, shares."""
    return {
        "intended_rps": None if intended_rps is None else round(intended_rps, 1),
        "sent": tally.total,
        "sent_rps": round(tally.total / tally.seconds, 1),
        "goodput_rps": round(tally.count(200) / tally.seconds, 1),
        "admitted_p50_ms": tally.ms(200, 50),
        "admitted_p99_ms": tally.ms(200, 99),
        "refused_share": round(tally.count(429) / max(tally.total, 1), 4),
        "refused_p50_ms": tally.ms(429, 50),
        "refused_p99_ms": tally.ms(429, 99),
        "by_status": {str(status): len(times) for status, times in sorted(tally.by_status.items())},
        "client_late_p50_ms": tally.late_ms(50),
        "client_late_p99_ms": tally.late_ms(99),
        "connections": tally.connections,
        "client_cores": round(tally.cpu_s / tally.seconds, 2),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


async def measure(port: int, seconds: float, deadline_ms: float, seed: int) -> dict[str, Any]:
    """Measure the capacity by a closed loop, then each rate of `RATES` by an open loop."""
    client = tier_client(port)
    await closed_loop(client, infer_body("warm", deadline_ms, seed), 8, min(3.0, seconds))
    body = infer_body("full", deadline_ms, seed)
    closed = await closed_loop(client, body, CLIENTS, seconds)
    capacity = closed.count(200) / closed.seconds
    results: dict[str, Any] = {"capacity_rps": round(capacity, 1), "closed": describe(closed)}
    for name, factor in RATES.items():
        rate = capacity * factor
        arrivals = poisson(rate, seconds, FLAT, seed, max_requests=MAX_CHAOS_REQUESTS)
        body = infer_body(name, deadline_ms, seed)
        tally = await open_loop(client, body, arrivals, deadline_ms / 1e3 + 2)
        figures = results[name] = describe(tally, rate)
        figures["goodput_of_capacity"] = round(figures["goodput_rps"] / capacity, 3)
        normal_p99_ms = results["at_80_percent"]["admitted_p99_ms"]
        if figures["admitted_p99_ms"] and normal_p99_ms:
            figures["p99_ratio"] = round(figures["admitted_p99_ms"] / normal_p99_ms, 2)
        await asyncio.sleep(PAUSE_S)
    return results


@click.command()
@click.option(
    "--tier",
    type=click.Choice(sorted(MODULES)),
    default="edge",
    show_default=True,
    help="Tier to overload.",
)
@click.option("--seconds", default=20.0, show_default=True, help="Length of each run in seconds.")
@click.option(
    "--deadline-ms", default=2_000.0, show_default=True, help="Deadline of each request in ms."
)
@click.option("--workers", type=int, help="Worker processes of the tier.  [default: its cores]")
@click.option("--max-queue-ms", type=float, help="DIMEE_MAX_QUEUE_MS of the tier, in ms.")
@click.option("--pin", is_flag=True, help="Run the tier on the first core, the client on others.")
@click.option("--seed", default=0, show_default=True, help="Seed of arrivals and texts.")
@out_option
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
    """Measure a tier under overload.

    Exit with 1 if, at ten times the capacity, goodput is below 90 % of the capacity, or the p99
    latency of admitted requests is at least twice that at 80 % of the capacity.
    """
    settings = {"DIMEE_LEDGER_URL": "http://127.0.0.1:9"}
    if workers is not None:
        settings["DIMEE_WORKERS"] = str(workers)
    if max_queue_ms is not None:
        settings["DIMEE_MAX_QUEUE_MS"] = str(max_queue_ms)
    cores = sorted(os.sched_getaffinity(0))
    if pin and len(cores) < 2:
        raise click.UsageError("--pin needs two cores; leave it out")
    role = Role(tier, MODULES[tier], free_ports(1)[0])
    with (
        temporary_folder("chaos") as folder,
        Testbed([role], folder, settings) as testbed,
    ):
        if pin:
            os.sched_setaffinity(0, cores[:1])  # the tier inherits it
        testbed.start_all()
        if pin:
            os.sched_setaffinity(0, cores[1:])
        results = run(measure(role.port, seconds, deadline_ms, seed))
    results |= {"tier": tier, "settings": settings, "seconds": seconds, "deadline_ms": deadline_ms}
    results |= {"cores": os.cpu_count(), "pinned": pin, "seed": seed}
    write_figures(results, out)
    at_10 = results["at_10_times"]
    passed = (
        at_10["goodput_of_capacity"] >= MIN_GOODPUT and at_10.get("p99_ratio", 99.0) < MAX_P99_RATIO
    )
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    run_program(main)
