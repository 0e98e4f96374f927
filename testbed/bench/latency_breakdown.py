"""Latency of a request by part: a mobile with an edge and with a cloud, one text at a time."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.bundle.loading import Bundle
from shared.domain import InputText
from testbed.bench.measured_server import serve
from testbed.bench.peers import PEERS, SERVERS, Peer
from testbed.processes.children import run_watched
from testbed.processes.temporary import temporary_folder

PARTS = (
    "decision: tokenise, embed, route",
    "mobile: ledger entries",
    "mobile: other",
    "HTTP both ways, validation",
    "tier: ledger entries and answer",
    "tier: tokenise, embed, queue",
    "layers",
)
WARM_UP = 100
"""Requests that are not counted; half of them if there are fewer than twice as many."""


def latency_breakdown(
    bundle: Bundle, venvs: Path, texts: Sequence[InputText], port: int, runs: int
) -> dict[str, Any]:
    """Return median microseconds by tier and part; the texts are sent ``runs`` times in turn.

    ``beyond_layers_ms`` is the median time of one exchange that is not spent in the layers.
    """
    by_tier: dict[str, Any] = {}
    for tier in ("edge", "cloud"):
        peer = tier_peer(tier)
        with (
            serve(peer, peer.variants[0], venvs, bundle.path, port, texts[0]) as server,
            temporary_folder("bench") as state,
        ):
            job = {
                "bundle": str(bundle.path),
                "state_dir": str(state),
                "tier": tier,
                "url": f"http://127.0.0.1:{server.port}",
                "texts": [(text.text, text.pair) for text in texts] * runs,
            }
            done = run_watched(
                [sys.executable, str(SERVERS / "mobile_breakdown.py")],
                json.dumps(job),
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            )
        done.check_returncode()
        rows = [dict(zip(PARTS, row, strict=True)) for row in json.loads(done.stdout)]
        rows = rows[min(WARM_UP, len(rows) // 2) :]
        by_tier[tier] = {
            "parts_us": {
                part: round(statistics.median(row[part] for row in rows)) for part in PARTS
            },
            "total_us": round(statistics.median(sum(row.values()) for row in rows)),
            "beyond_layers_ms": round(
                statistics.median(sum(list(row.values())[3:6]) for row in rows) / 1e3, 3
            ),
            "requests": len(rows),
        }
    return by_tier


def tier_peer(name: str) -> Peer:
    """Return the edge or the cloud as a server of the benchmark."""
    dimee = PEERS[0]
    return Peer(
        name,
        "shipped",
        lambda python, port, variant, model: [str(python), "-m", f"{name}_server"],
        dimee.path,
        dimee.body,
        "shipped",
        dimee.variants,
    )


def draw_breakdown(by_tier: dict[str, Any], file: Path) -> None:
    """Draw one stacked bar a tier and write it as SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes = figure.subplots()
    for row, (tier, figures) in enumerate(by_tier.items()):
        left = 0.0
        for index, part in enumerate(PARTS):
            width = figures["parts_us"][part]
            label = part if row == 0 else None
            axes.barh(tier, width, left=left, color=f"C{index}", label=label)
            if width > 120:
                axes.text(left + width / 2, row, f"{width}", ha="center", va="center", fontsize=8)
            left += width
    axes.set_xlabel("time of one request in microseconds (medians, one request at a time)")
    axes.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(file, metadata={"Date": None})
