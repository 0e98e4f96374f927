"""Early exit on against off through a tier's server, over HTTP, at two numbers of connections.

One edge serves both: off is a threshold of 1, which no confidence reaches, on the bundle's α. The
rest of a request (HTTP, queue, ledger entries, batching) is the same.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from shared.domain import InputText
from shared.errors import DimeeError
from testbed.bench.benchmark_run import describe, make_client
from testbed.bench.latency_breakdown import tier_peer
from testbed.bench.measured_server import serve
from testbed.bench.peers import Peer, Variant
from testbed.load.generator import closed_loop, send_in_turn
from testbed.load.http_client import run

CONNECTIONS = (8, 64)
WARM_UP_S = 2.0
MAX_EXIT_TEXTS = 200


def early_exit(
    model: Path,
    venvs: Path,
    texts: Sequence[InputText],
    port: int,
    depths: dict[str, int],
    alpha: float,
    seconds: float,
    runs: int,
) -> dict[str, Any]:
    """Return requests a second with early exit and without, and their ratio, by depth.

    ``depths`` are the layers that the edge runs, by name. Figures are medians of alternating
    ``runs``; a ratio is that of neighbouring measurements.
    """
    found: dict[str, Any] = {}
    for name, layers in depths.items():
        variant = Variant(name, {"DIMEE_EDGE_LAYERS": str(layers), "DIMEE_MAX_QUEUE_MS": "10000"})
        peers = {"off": _with_alpha(1.0), "on": _with_alpha(alpha)}
        with serve(peers["on"], variant, venvs, model, port, texts[0]):
            for peer in peers.values():
                _measure(peer, port, texts, max(CONNECTIONS), WARM_UP_S)
            found[name] = {
                "layers": layers,
                "mean_exit_layer": {
                    kind: _mean_exit(peer, port, texts) for kind, peer in peers.items()
                },
                "by_connections": {
                    str(count): _compare(peers, port, texts, count, seconds, runs)
                    for count in CONNECTIONS
                },
            }
    return found


def _with_alpha(alpha: float) -> Peer:
    peer = tier_peer("edge")
    return replace(peer, body=lambda text: peer.body(text) | {"alpha": alpha})


def _compare(
    peers: dict[str, Peer],
    port: int,
    texts: Sequence[InputText],
    connections: int,
    seconds: float,
    runs: int,
) -> dict[str, Any]:
    figures: dict[str, list[dict[str, Any]]] = {kind: [] for kind in peers}
    for number in range(runs):
        for kind in sorted(peers, reverse=bool(number % 2)):
            figures[kind].append(_measure(peers[kind], port, texts, connections, seconds))
    pairs = zip(figures["on"], figures["off"], strict=True)
    ratios = [on["rps"] / off["rps"] for on, off in pairs]
    return {
        kind: {
            name: round(statistics.median(one[name] for one in ones), 1)
            for name in ("rps", "p50_ms", "p95_ms")
        }
        for kind, ones in figures.items()
    } | {
        "ratio": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
    }


def _measure(
    peer: Peer, port: int, texts: Sequence[InputText], connections: int, seconds: float
) -> dict[str, Any]:
    client, body = make_client(peer, port, texts)
    figures = describe(run(closed_loop(client, body, connections, seconds)))
    if not figures["rps"] or figures["errors"]:
        raise DimeeError(
            f"early-exit: the edge refused {figures['errors']} requests of {connections} "
            "connections; measure on a machine that does nothing else"
        )
    return figures


def _mean_exit(peer: Peer, port: int, texts: Sequence[InputText]) -> float:
    """Return the mean exit layer of the first texts, sent one by one."""
    client, body = make_client(peer, port, texts)
    count = min(MAX_EXIT_TEXTS, len(texts))
    answers = run(send_in_turn(client, [body(number) for number in range(count)]))
    exits: list[int] = [json.loads(answer.body)["exit_layer"] for answer in answers]
    return round(statistics.mean(exits), 2)
