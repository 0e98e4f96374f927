"""Throughput of the edge and of the layers alone, on one core and on all cores."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.domain import InputText
from testbed.bench.benchmark_run import make_client
from testbed.bench.latency_breakdown import tier_peer
from testbed.bench.layer_speed import layers_only
from testbed.bench.measured_server import serve
from testbed.load.generator import closed_loop
from testbed.load.http_client import run

CONCURRENCY = 64
WARM_UP_S = 2.0


def core_scaling(
    model: Path, venvs: Path, texts: Sequence[InputText], port: int, seconds: float, runs: int
) -> dict[str, Any]:
    """Return requests a second of an edge, and texts a second of its layers alone.

    The client shares the cores. Figures are medians of alternating ``runs``.
    """
    all_cores = os.sched_getaffinity(0)
    one_core = {min(all_cores)}
    rates: dict[str, list[float]] = {"one": [], "all": []}
    layers: dict[str, list[float]] = {"one": [], "all": []}
    try:
        for _ in range(runs):
            for name, cores in (("one", one_core), ("all", all_cores)):
                os.sched_setaffinity(0, cores)  # a server started now inherits it
                rates[name].append(_rate(model, venvs, texts, port, seconds))
                layers[name].append(layers_only(model, texts, 1)["8"])
    finally:
        os.sched_setaffinity(0, all_cores)
    return {
        "cores": len(all_cores),
        "edge_rps": {name: round(statistics.median(values), 1) for name, values in rates.items()},
        "edge_ratio": _ratio(rates),
        "layers_texts_s": {
            name: round(statistics.median(values), 1) for name, values in layers.items()
        },
        "layers_ratio": _ratio(layers),
    }


def _ratio(rates: dict[str, list[float]]) -> float:
    pairs = zip(rates["all"], rates["one"], strict=True)
    return round(statistics.median(all_cores / one_core for all_cores, one_core in pairs), 2)


def _rate(model: Path, venvs: Path, texts: Sequence[InputText], port: int, seconds: float) -> float:
    peer = tier_peer("edge")
    with serve(peer, peer.variants[0], venvs, model, port, texts[0]):
        client, body = make_client(peer, port, texts)
        run(closed_loop(client, body, CONCURRENCY, WARM_UP_S))
        tally = run(closed_loop(client, body, CONCURRENCY, seconds))
    return tally.count(200) / tally.seconds
