"""Measurement of the servers, one after the other in alternating runs, with the same client."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.domain import InputText
from shared.errors import DimeeError
from testbed.bench.measured_server import MeasuredServer, serve
from testbed.bench.peers import Peer, Variant
from testbed.load.arrivals import FLAT, poisson
from testbed.load.generator import MakeBody, closed_loop, open_loop
from testbed.load.http_client import HttpClient, run
from testbed.load.tally import Tally

CONCURRENCIES = (1, 8, 64)
SHARES = (0.5, 0.8)
WARM_UP_S = 2.0
TIMEOUT_S = 10.0
"""Time after which the open loop abandons a request without an answer."""


@dataclass(frozen=True)
class BenchmarkSettings:
    """Settings that are the same for every server; ``seconds`` is the length of a measurement."""

    texts: Sequence[InputText]
    venvs: Path
    models: dict[str, Path]
    port: int
    seconds: float
    runs: int
    seed: int
    report: Callable[[str], None]


def make_client(peer: Peer, port: int, texts: Sequence[InputText]) -> tuple[HttpClient, MakeBody]:
    """Return a client of a server, and a function that makes bodies with the texts in turn."""

    def body(number: int) -> bytes:
        return json.dumps(peer.body(texts[number % len(texts)])).encode()

    return HttpClient(f"http://127.0.0.1:{port}", peer.path), body


def describe(tally: Tally) -> dict[str, float | None]:
    """Return answered requests a second, latency percentiles in ms, and the number of errors."""
    return {
        "rps": round(tally.count(200) / tally.seconds, 1) if tally.seconds else 0.0,
        **{f"p{percent}_ms": tally.ms(200, percent) for percent in (50, 95, 99)},
        "errors": tally.total - tally.count(200),
    }


def choose_variants(
    peers: Sequence[Peer], settings: BenchmarkSettings
) -> dict[str, dict[str, Any]]:
    """Return each server's best variant at concurrency 64, and the rates of all variants."""
    chosen = {}
    for peer in peers:
        rates: dict[str, float] = {}
        for variant in peer.variants:
            try:
                with _serve(peer, variant, settings) as server:
                    _measure_closed_loop(server, settings, 64, WARM_UP_S)
                    rates[variant.name] = _measure_closed_loop(
                        server, settings, 64, settings.seconds
                    )["rps"]
            except DimeeError as error:
                rates[variant.name] = 0.0
                settings.report(f"  {error.message}")
        best = max(rates, key=lambda name: rates[name])
        shown = ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
        settings.report(f"  {peer.name}: {best} ({shown})")
        if rates[best]:
            chosen[peer.name] = {"variant": best, "tried_rps_at_64": rates}
    return chosen


def run_closed_loops(
    peers: Sequence[Peer], chosen: dict[str, Any], settings: BenchmarkSettings
) -> dict[str, Any]:
    """Return closed loops at each concurrency, in runs that alternate servers, and medians."""
    runs: dict[str, list[dict[str, Any]]] = {peer.name: [] for peer in peers}
    for number in range(settings.runs):
        for peer in peers:
            by_concurrency: dict[str, Any] = {}
            with _serve(peer, _variant(peer, chosen), settings) as server:
                _measure_closed_loop(server, settings, 8, WARM_UP_S)
                for concurrency in CONCURRENCIES:
                    figures = _measure_closed_loop(server, settings, concurrency, settings.seconds)
                    by_concurrency[str(concurrency)] = figures
            runs[peer.name].append(by_concurrency)
            shown = " / ".join(f"{by_concurrency[str(c)]['rps']:g}" for c in CONCURRENCIES)
            settings.report(f"  run {number + 1}: {peer.name} {shown} requests/s")
    return {name: {"runs": rows, "median": _medians(rows)} for name, rows in runs.items()}


def run_open_loops(
    peers: Sequence[Peer], chosen: dict[str, Any], settings: BenchmarkSettings, capacity: float
) -> dict[str, Any]:
    """Return one open loop at each of `SHARES` of the best server's ``capacity`` (requests/s)."""
    by_server: dict[str, Any] = {peer.name: {} for peer in peers}
    for peer in peers:
        for share in SHARES:
            times = poisson(share * capacity, settings.seconds, FLAT, settings.seed)
            with _serve(peer, _variant(peer, chosen), settings) as server:
                _measure_closed_loop(server, settings, 8, WARM_UP_S)
                client, body = make_client(peer, server.port, settings.texts)
                tally = run(open_loop(client, body, times, TIMEOUT_S))
            by_server[peer.name][f"{share:.0%}"] = describe(tally) | {"sent": len(times)}
        settings.report(f"  open loop: {peer.name} {by_server[peer.name]}")
    return by_server


def _serve(
    peer: Peer, variant: Variant, settings: BenchmarkSettings
) -> AbstractContextManager[MeasuredServer]:
    model, text = settings.models[peer.model], settings.texts[0]
    return serve(peer, variant, settings.venvs, model, settings.port, text)


def _variant(peer: Peer, chosen: dict[str, Any]) -> Variant:
    name = chosen[peer.name]["variant"]
    return next(variant for variant in peer.variants if variant.name == name)


def _measure_closed_loop(
    server: MeasuredServer, settings: BenchmarkSettings, concurrency: int, seconds: float
) -> dict[str, Any]:
    client, body = make_client(server.peer, server.port, settings.texts)
    with server.measured() as usage:
        tally = run(closed_loop(client, body, concurrency, seconds))
    return describe(tally) | {
        "cpu_s_per_1000": round(1e3 * usage.cpu_s / max(1, tally.count(200)), 3),
        "peak_mb": round(usage.peak_mb, 1),
    }


def _medians(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    return {
        level: {
            name: round(statistics.median(run[level][name] or 0.0 for run in runs), 3)
            for name in runs[0][level]
        }
        for level in runs[0]
    }
