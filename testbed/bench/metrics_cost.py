"""Cost of the metrics: requests a second of an edge and of a gateway with them and without."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from shared.domain import InputText
from testbed.bench.benchmark_run import make_client
from testbed.bench.latency_breakdown import tier_peer
from testbed.bench.measured_server import MeasuredServer, serve
from testbed.bench.peers import Peer, Variant
from testbed.load.generator import closed_loop
from testbed.load.http_client import run
from testbed.processes.ports import free_ports

CONCURRENCY = 64
WARM_UP_S = 2.0
# a queue that refuses nothing on a slow machine
VARIANTS = tuple(
    Variant(value, {"DIMEE_METRICS": value, "DIMEE_MAX_QUEUE_MS": "10000"})
    for value in ("off", "on")
)


def metrics_cost(
    model: Path, venvs: Path, texts: Sequence[InputText], seconds: float, runs: int
) -> dict[str, Any]:
    """Return medians of requests a second with metrics ``on`` and ``off``, and of their ratios.

    Both servers run all the time and are loaded in turn, the order changing with each of ``runs``,
    so that a ratio compares neighbouring measurements. ``cpu_ratio`` is that of the CPU time of a
    request. The gateway answers with its own layers.
    """
    return {
        peer.name: _compare(peer, model, venvs, texts, seconds, runs)
        for peer in (tier_peer("edge"), _gateway())
    }


def _compare(
    peer: Peer, model: Path, venvs: Path, texts: Sequence[InputText], seconds: float, runs: int
) -> dict[str, Any]:
    rates: dict[str, list[float]] = {variant.name: [] for variant in VARIANTS}
    cpu_s: dict[str, list[float]] = {variant.name: [] for variant in VARIANTS}
    with ExitStack() as stack:
        servers = {
            variant.name: stack.enter_context(serve(peer, variant, venvs, model, port, texts[0]))
            for variant, port in zip(VARIANTS, free_ports(len(VARIANTS)), strict=True)
        }
        for server in servers.values():
            _measure(server, texts, WARM_UP_S)
        for number in range(runs):
            for name in sorted(servers, reverse=bool(number % 2)):
                rate, used_s = _measure(servers[name], texts, seconds)
                rates[name].append(rate)
                cpu_s[name].append(used_s)
    return {
        "rps": {name: round(statistics.median(values), 1) for name, values in rates.items()},
        "rps_ratio": _ratio(rates),
        "cpu_ratio": _ratio(cpu_s),
    }


def _ratio(values: dict[str, list[float]]) -> float:
    pairs = zip(values["on"], values["off"], strict=True)
    return round(statistics.median(on / off for on, off in pairs), 3)


def _measure(
    server: MeasuredServer, texts: Sequence[InputText], seconds: float
) -> tuple[float, float]:
    """Return requests a second, and CPU seconds of a request."""
    client, body = make_client(server.peer, server.port, texts)
    with server.measured() as usage:
        tally = run(closed_loop(client, body, CONCURRENCY, seconds))
    answered = max(1, tally.count(200))
    return answered / tally.seconds, usage.cpu_s / answered


def _gateway() -> Peer:
    edge = tier_peer("edge")
    return Peer(
        "gateway",
        edge.precision,
        lambda python, port, variant, model: [sys.executable, "-m", "mobile_client"],
        "/v1/classify",
        _call,
        edge.model,
        VARIANTS,
    )


def _call(text: InputText) -> dict[str, Any]:
    pairs = {} if text.pair is None else {"pairs": [text.pair]}
    return {"texts": [text.text], "policy": "mobile", "deadline_ms": 60_000, **pairs}
