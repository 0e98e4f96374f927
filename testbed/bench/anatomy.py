"""Where a request's microseconds go: a mobile, an edge and a cloud, one text after the other."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shared.bundle.loading import Bundle
from testbed.bench.peers import PEERS, SERVERS, Peer
from testbed.bench.served import serve

PARTS = (
    "decision: tokenise, embed, route",
    "mobile: ledger entries",
    "mobile: the rest",
    "HTTP there and back, validation",
    "tier: ledger entries and answer",
    "tier: tokenise, embed, queue",
    "layers",
)
WARM = 100


def anatomy(
    bundle: Bundle, venvs: Path, texts: Sequence[str], port: int, runs: int
) -> dict[str, Any]:
    """Median microseconds by part and tier, the texts in turn ``runs`` times, concurrency 1.

    ``beyond_layers_ms`` is the median of what one exchange costs the mobile beyond the layers'
    time.
    """
    found: dict[str, Any] = {}
    for tier in ("edge", "cloud"):
        peer = tier_peer(tier)
        with (
            serve(peer, peer.variants[0], venvs, bundle.path, port) as served,
            tempfile.TemporaryDirectory(prefix="dimee-anatomy-") as state,
        ):
            asked = {
                "bundle": str(bundle.path),
                "state_dir": state,
                "tier": tier,
                "url": f"http://127.0.0.1:{served.port}",
                "texts": list(texts) * runs,
            }
            said = subprocess.run(
                [sys.executable, str(SERVERS / "mobile_anatomy.py")],
                input=json.dumps(asked),
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            )
        rows = [dict(zip(PARTS, row, strict=True)) for row in json.loads(said.stdout)]
        rows = rows[WARM:]
        found[tier] = {
            "parts_us": {
                part: round(statistics.median(row[part] for row in rows)) for part in PARTS
            },
            "total_us": round(statistics.median(sum(row.values()) for row in rows)),
            "beyond_layers_ms": round(
                statistics.median(sum(list(row.values())[3:6]) for row in rows) / 1e3, 3
            ),
            "requests": len(rows),
        }
    return found


def tier_peer(name: str) -> Peer:
    """The edge or the cloud as a server of the benchmark."""
    ours = PEERS[0]
    return Peer(
        name,
        "shipped",
        lambda python, port, variant, model: [str(python), "-m", f"{name}_server"],
        ours.path,
        ours.body,
        "shipped",
        ours.variants,
    )


def picture(found: dict[str, Any], file: Path) -> None:
    """One stacked bar a tier."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes = figure.subplots()
    for row, (tier, one) in enumerate(found.items()):
        left = 0.0
        for index, part in enumerate(PARTS):
            width = one["parts_us"][part]
            label = part if row == 0 else None
            axes.barh(tier, width, left=left, color=f"C{index}", label=label)
            if width > 120:
                axes.text(left + width / 2, row, f"{width}", ha="center", va="center", fontsize=8)
            left += width
    axes.set_xlabel("microseconds of one request, medians, one at a time")
    axes.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(file, metadata={"Date": None})
