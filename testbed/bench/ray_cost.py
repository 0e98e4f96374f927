"""Cost of Ray Serve: the cloud as plain replicas, behind Ray's proxy, and behind its HAProxy.

``python -m testbed.bench.ray_cost [--replicas N] [--rounds N] [--seconds S]`` starts each server in
turn, with the same number of processes that run layers, and measures it with 8 and 64 connections
in a closed loop. Rounds alternate the order. Plain replicas share the connections, as clients do
that spread over several addresses; Ray has one address. It needs the extra ray. If Ray's nodes
would bind the address of a network, run it in a network namespace of its own:
``unshare -rn sh -c 'ip link set lo up; exec python -m testbed.bench.ray_cost'``.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import click
import httpx

from shared.domain import Tier
from shared.errors import DimeeError
from testbed.bench.benchmark_run import describe
from testbed.load.generator import closed_loop
from testbed.load.http_client import HttpClient, run
from testbed.load.tally import Tally
from testbed.processes.children import start_child, stop_all
from testbed.processes.ports import free_ports
from testbed.processes.temporary import temporary_folder
from testbed.texts import sample_sentences

CONNECTIONS = (8, 64)
PATH = "/v1/infer"
START_S = 300.0
STOP_S = 60.0
SERVERS = ("plain replicas", "Ray Serve", "Ray Serve, HAProxy")


@click.command()
@click.option(
    "--replicas",
    default=2,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Number of replicas of the cloud.",
)
@click.option(
    "--rounds",
    default=3,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Number of alternating measurements of each server.",
)
@click.option(
    "--seconds",
    default=8.0,
    show_default=True,
    type=click.FloatRange(0.5, 600),
    help="Length of one measurement in seconds.",
)
def main(replicas: int, rounds: int, seconds: float) -> None:
    """Print the medians of all rounds."""
    measured: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for number in range(rounds):
        order = SERVERS if number % 2 == 0 else tuple(reversed(SERVERS))
        for name in order:
            with _serving(name, replicas) as urls:
                _closed_loop(urls, max(CONNECTIONS), min(3.0, seconds))  # warm-up
                for connections in CONNECTIONS:
                    tally = _closed_loop(urls, connections, seconds)
                    figures = describe(tally)
                    measured.setdefault((name, connections), []).append(figures)
                    click.echo(json.dumps({"server": name, "connections": connections} | figures))
    click.echo(
        f"{'server':20} {'connections':>11} {'requests/s':>10} {'p50 ms':>8} {'p95 ms':>8} errors"
    )
    for (name, connections), found in sorted(measured.items(), key=lambda item: item[0][1]):
        medians = [_median(found, key) for key in ("rps", "p50_ms", "p95_ms")]
        errors = sum(int(one["errors"]) for one in found)
        shown = f"{medians[0]:>10.0f} {medians[1]:>8.1f} {medians[2]:>8.1f} {errors:>6}"
        click.echo(f"{name:20} {connections:>11} {shown}")


def _median(found: list[dict[str, Any]], key: str) -> float:
    values = [one[key] for one in found if one[key] is not None]
    return statistics.median(values) if values else float("nan")


def _closed_loop(urls: list[str], connections: int, seconds: float) -> Tally:
    """Return the tally of a closed loop whose connections are shared evenly between ``urls``."""
    texts = sample_sentences()

    def body(number: int) -> bytes:
        attempt = {"request_id": uuid.uuid4().hex, "attempt_id": uuid.uuid4().hex}
        text = texts[number % len(texts)]
        return json.dumps(attempt | {"text": text, "deadline_ms": 60_000}).encode()

    async def measure() -> list[Tally]:
        shares = [
            connections // len(urls) + (n < connections % len(urls)) for n in range(len(urls))
        ]
        return await asyncio.gather(
            *(
                closed_loop(HttpClient(url, PATH), body, share, seconds)
                for url, share in zip(urls, shares, strict=True)
                if share
            )
        )

    merged = Tally(connections=connections)
    for tally in run(measure()):
        merged.seconds = max(merged.seconds, tally.seconds)
        for status, latencies in tally.by_status.items():
            merged.by_status.setdefault(status, []).extend(latencies)
    return merged


@contextmanager
def _serving(name: str, replicas: int) -> Iterator[list[str]]:
    """Serve the cloud during the block; yield its addresses."""
    plain = name == SERVERS[0]
    ports = free_ports(replicas if plain else 1)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    # nothing listens on port 9: entries stay in the outbox, as when the ledger is down
    common = os.environ | {
        "DIMEE_WORKERS": "1",
        "DIMEE_LEDGER_URL": "http://127.0.0.1:9",
        "RAY_SERVE_ENABLE_HA_PROXY": str(int(name == SERVERS[2])),
    }
    serve_ray = ["-m", "shared.command", "serve-ray", "--tier", Tier.CLOUD.value]
    command = ["-m", "cloud_server"] if plain else [*serve_ray, "--replicas", str(replicas)]
    with temporary_folder("ray-cost") as folder, ExitStack() as stack:
        log = folder / "log"
        started: list[subprocess.Popen[Any]] = []
        stack.callback(lambda: stop_all(started, each_s=STOP_S, total_s=STOP_S))
        for number, port in enumerate(ports):
            own = {"DIMEE_PORT": str(port), "DIMEE_STATE_DIR": str(folder / str(number))}
            with log.open("ab") as out:
                started.append(start_child(command, env=common | own, stdout=out, stderr=out))
        for url in urls:
            _wait_ready(url, started, log)
        yield urls


def _wait_ready(url: str, started: list[subprocess.Popen[Any]], log: Path) -> None:
    until = time.monotonic() + START_S
    with httpx.Client(trust_env=False, timeout=5.0) as http:
        while time.monotonic() < until and all(process.poll() is None for process in started):
            with suppress(httpx.TransportError):
                if http.get(f"{url}/readyz").status_code == httpx.codes.OK:
                    return
            time.sleep(0.2)
    lines = log.read_text(errors="replace").strip().splitlines()
    raise DimeeError(f"the server did not start: {lines[-1][:300] if lines else 'no output'}")


if __name__ == "__main__":
    main()
