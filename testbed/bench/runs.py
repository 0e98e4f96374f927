"""The servers one after the other, in alternating runs, under the same client."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import DimeeError
from testbed.bench.client import arrivals, closed_loop, open_loop
from testbed.bench.peers import Peer, Variant
from testbed.bench.served import Served, serve

CONCURRENCIES = (1, 8, 64)
SHARES = (0.5, 0.8)
WARM_S = 2.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Course:
    """What every server is put through; ``seconds`` of each measurement."""

    texts: Sequence[str]
    venvs: Path
    models: dict[str, Path]
    port: int
    seconds: float
    runs: int
    seed: int
    say: Say


def choose_variants(peers: Sequence[Peer], course: Course) -> dict[str, dict[str, Any]]:
    """Each server's best settings at concurrency 64, with all that were tried."""
    chosen = {}
    for peer in peers:
        tried = {}
        for variant in peer.variants:
            try:
                with serve(*_who(peer, variant, course)) as served:
                    _closed(served, course, 64, WARM_S)
                    tried[variant.name] = _closed(served, course, 64, course.seconds)["rps"]
            except DimeeError as error:
                tried[variant.name] = 0.0
                course.say(f"  {error.message}")
        best = max(tried, key=lambda name: tried[name])
        course.say(f"  {peer.name}: {best} ({', '.join(f'{n} {r:g}' for n, r in tried.items())})")
        if tried[best]:
            chosen[peer.name] = {"variant": best, "tried_rps_at_64": tried}
    return chosen


def race(peers: Sequence[Peer], chosen: dict[str, Any], course: Course) -> dict[str, Any]:
    """Closed loops at each concurrency, ``runs`` times, servers alternating; with medians."""
    runs: dict[str, list[dict[str, Any]]] = {peer.name: [] for peer in peers}
    for number in range(course.runs):
        for peer in peers:
            found: dict[str, Any] = {}
            with serve(*_who(peer, _variant(peer, chosen), course)) as served:
                _closed(served, course, 8, WARM_S)
                for concurrency in CONCURRENCIES:
                    found[str(concurrency)] = _closed(served, course, concurrency, course.seconds)
            runs[peer.name].append(found)
            shown = " / ".join(f"{found[str(c)]['rps']:g}" for c in CONCURRENCIES)
            course.say(f"  run {number + 1}: {peer.name} {shown} requests/s")
    return {name: {"runs": ours, "median": _medians(ours)} for name, ours in runs.items()}


def race_open(
    peers: Sequence[Peer], chosen: dict[str, Any], course: Course, capacity: float
) -> dict[str, Any]:
    """Open loops at shares of the best server's ``capacity`` (requests/s), once each."""
    found: dict[str, Any] = {peer.name: {} for peer in peers}
    for peer in peers:
        for share in SHARES:
            times = arrivals(share * capacity, course.seconds, course.seed)
            with serve(*_who(peer, _variant(peer, chosen), course)) as served:
                _closed(served, course, 8, WARM_S)
                tally = asyncio.run(
                    open_loop(served.port, peer.path, peer.body, course.texts, times)
                )
            found[peer.name][f"{share:.0%}"] = tally.report() | {"offered": len(times)}
        course.say(f"  open loop: {peer.name} {found[peer.name]}")
    return found


def _who(peer: Peer, variant: Variant, course: Course) -> tuple[Peer, Variant, Path, Path, int]:
    return peer, variant, course.venvs, course.models[peer.model], course.port


def _variant(peer: Peer, chosen: dict[str, Any]) -> Variant:
    name = chosen[peer.name]["variant"]
    return next(variant for variant in peer.variants if variant.name == name)


def _closed(served: Served, course: Course, concurrency: int, seconds: float) -> dict[str, float]:
    peer = served.peer
    with served.watched() as usage:
        tally = asyncio.run(
            closed_loop(served.port, peer.path, peer.body, course.texts, concurrency, seconds)
        )
    answered = max(1, len(tally.latencies))
    return tally.report() | {
        "cpu_s_per_1000": round(1e3 * usage.cpu_s / answered, 3),
        "peak_mb": round(usage.peak_mb, 1),
    }


def _medians(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    return {
        level: {
            what: round(statistics.median(run[level][what] for run in runs), 3)
            for what in runs[0][level]
        }
        for level in runs[0]
    }
