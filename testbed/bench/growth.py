"""What a second core brings: the edge's requests a second on one core and on all."""

from __future__ import annotations

import asyncio
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testbed.bench.anatomy import tier_peer
from testbed.bench.bare import bare_loop
from testbed.bench.client import closed_loop
from testbed.bench.served import serve

CONCURRENCY = 64


def growth(
    model: Path, venvs: Path, texts: Sequence[str], port: int, seconds: float, runs: int
) -> dict[str, Any]:
    """Requests a second of an edge, client on the same cores; and the layers alone."""
    everything = os.sched_getaffinity(0)
    one_core = {min(everything)}
    rates: dict[str, list[float]] = {"one": [], "all": []}
    bare: dict[str, list[float]] = {"one": [], "all": []}
    try:
        for _ in range(runs):
            for name, cores in (("one", one_core), ("all", everything)):
                os.sched_setaffinity(0, cores)  # a server started now inherits it
                rates[name].append(_rate(model, venvs, texts, port, seconds))
                bare[name].append(bare_loop(model, texts, 1)["8"])
    finally:
        os.sched_setaffinity(0, everything)
    return {
        "cores": len(everything),
        "edge_rps": {name: round(statistics.median(found), 1) for name, found in rates.items()},
        "edge_ratio": _ratio(rates),
        "layers_texts_s": {name: round(statistics.median(f), 1) for name, f in bare.items()},
        "layers_ratio": _ratio(bare),
    }


def _ratio(found: dict[str, list[float]]) -> float:
    pairs = zip(found["all"], found["one"], strict=True)
    return round(statistics.median(many / one for many, one in pairs), 2)


def _rate(model: Path, venvs: Path, texts: Sequence[str], port: int, seconds: float) -> float:
    peer = tier_peer("edge")
    with serve(peer, peer.variants[0], venvs, model, port) as served:
        for duration in (2.0, seconds):
            tally = asyncio.run(
                closed_loop(served.port, peer.path, peer.body, texts, CONCURRENCY, duration)
            )
    return tally.report()["rps"]
