"""CPU time of an edge's request without tracing, with it, and in another checkout.

``python -m testbed.bench.tracing_cost [--tree CHECKOUT] [--rounds N] [--seconds S]`` measures the
edge's own process, without the processes of its layers, in alternating rounds. ``off`` is measured
twice: the ratio of the two says how much of a difference is chance.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click
import httpx
import psutil

from testbed.load.generator import closed_loop
from testbed.load.http_client import HttpClient, run
from testbed.processes.children import start_child, stop_all
from testbed.processes.ports import free_ports
from testbed.processes.temporary import temporary_folder
from testbed.texts import sample_sentences

CONNECTIONS = 16
START_S = 60.0
HERE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    """A server to measure; ``flags`` are those of the caller's ``traceparent``, if it sends one."""

    name: str
    tree: Path = HERE
    flags: str | None = None
    tracing: bool = False


class Sink(BaseHTTPRequestHandler):
    """Accepts spans as a collector does, and entries as the ledger does."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        answer = b""
        if self.path == "/v1/entries":
            stored = len(json.loads(body)["entries"])
            answer = json.dumps({"stored": stored, "duplicates": 0}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


@contextmanager
def _sink() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def _start(case: Case, sink: str, folder: Path, port: int, stack: ExitStack) -> psutil.Process:
    variables = {
        "PYTHONPATH": str(case.tree),
        "DIMEE_PORT": str(port),
        "DIMEE_STATE_DIR": str(folder / f"{port}"),
        "DIMEE_WORKERS": "1",
        "DIMEE_LEDGER_URL": sink,
    }
    if case.tracing:
        variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = sink
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("DIMEE_", "OTEL_"))
    }
    log = stack.enter_context((folder / f"{port}.log").open("wb"))
    process = start_child(
        ["-m", "edge_server"], cwd=case.tree, env=environment | variables, stderr=log, stdout=log
    )
    stack.callback(stop_all, [process])
    until = time.monotonic() + START_S
    with httpx.Client(trust_env=False) as http:
        while time.monotonic() < until:
            try:
                if http.get(f"http://127.0.0.1:{port}/readyz").is_success:
                    return psutil.Process(process.pid)
            except httpx.TransportError:
                time.sleep(0.1)
    raise click.ClickException(f"the edge of {case.name} is not ready within {START_S:.0f} s")


def _round_us(case: Case, process: psutil.Process, port: int, seconds: float) -> float:
    """Return the CPU time of a request in microseconds."""
    texts, run_id = sample_sentences(), uuid.uuid4().hex[:12]
    trace = {"traceparent": f"00-{uuid.uuid4().hex}-00f067aa0ba902b7-{case.flags}"}
    client = HttpClient(
        f"http://127.0.0.1:{port}", "/v1/infer", headers=trace if case.flags else None
    )

    def body(number: int) -> bytes:
        ids = {"request_id": f"{run_id}-{number}", "attempt_id": f"{run_id}-{number}"}
        return json.dumps(ids | {"text": texts[number % len(texts)]}).encode()

    before = process.cpu_times()
    tally = run(closed_loop(client, body, CONNECTIONS, seconds))
    after = process.cpu_times()
    answered = tally.count(200)
    if not answered:
        raise click.ClickException(f"the edge of {case.name} answered nothing")
    return (after.user + after.system - before.user - before.system) * 1e6 / answered


@click.command()
@click.option("--tree", type=click.Path(path_type=Path, exists=True), help="Another checkout.")
@click.option(
    "--rounds", default=20, show_default=True, type=click.IntRange(1), help="Number of rounds."
)
@click.option("--seconds", default=2.0, show_default=True, help="Seconds of a round.")
def main(tree: Path | None, rounds: int, seconds: float) -> None:
    """Print the CPU time of a request for each case."""
    cases = [
        Case("off"),
        Case("off again"),
        Case("off, caller's trace", flags="01"),
        Case("not sampled", flags="00", tracing=True),
        Case("sampled", flags="01", tracing=True),
    ]
    if tree is not None:
        cases.insert(0, Case("other checkout", tree.absolute()))
    found: dict[str, list[float]] = {case.name: [] for case in cases}
    with temporary_folder("tracing") as folder, ExitStack() as stack:
        sink = stack.enter_context(_sink())
        ports = free_ports(len(cases))
        processes = [
            _start(case, sink, folder, port, stack) for case, port in zip(cases, ports, strict=True)
        ]
        for number in range(rounds + 1):
            order = list(zip(cases, processes, ports, strict=True))
            for case, process, port in order if number % 2 else reversed(order):
                spent_us = _round_us(case, process, port, seconds)
                if number:  # the first round warms up
                    found[case.name].append(spent_us)
    base = found["off"]
    click.echo(f"{'case':<22} {'median µs':>10} {'lowest µs':>10} {'against off':>12}")
    for name, values in found.items():
        ratio = statistics.median(one / two for one, two in zip(values, base, strict=True))
        click.echo(
            f"{name:<22} {statistics.median(values):>10.1f} {min(values):>10.1f} {ratio:>12.3f}"
        )


if __name__ == "__main__":
    sys.exit(main())
