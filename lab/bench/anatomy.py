"""Where a request's microseconds go: a phone, an edge and a cloud, one text after the other."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lab.bench.peers import PEERS, Peer
from lab.bench.served import serve
from mobile_client import MobileClient
from shared.bundle import Bundle
from shared.ledger.outbox import Outbox
from shared.wire import Classification

PARTS = (
    "decision: tokenise, embed, route",
    "phone: ledger entries",
    "phone: the rest",
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

    ``beyond_layers_ms`` is the median of what one exchange costs the phone beyond the layers' time.
    """
    found: dict[str, Any] = {}
    for tier in ("edge", "cloud"):
        peer = tier_peer(tier)
        with (
            serve(peer, peer.variants[0], venvs, bundle.path, port) as served,
            tempfile.TemporaryDirectory(prefix="dimee-anatomy-") as state,
            MobileClient(
                bundle=bundle.path,
                state_dir=Path(state),
                ledger_url="http://127.0.0.1:9",
                policy=tier,
                edge_url=f"http://127.0.0.1:{served.port}",
                cloud_url=f"http://127.0.0.1:{served.port}",
            ) as phone,
        ):
            clock = _Clock(Outbox.record)
            Outbox.record = clock  # type: ignore[method-assign, assignment]
            try:
                rows = [_one(phone, clock, text) for text in list(texts) * runs]
            finally:
                Outbox.record = clock.timed  # type: ignore[method-assign]
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


class _Clock:
    """Stands for `Outbox.record` and adds up what it takes, in microseconds."""

    def __init__(self, timed: Callable[..., None]) -> None:
        self.timed = timed
        self.spent_us = 0.0

    def __get__(self, outbox: Outbox, kind: type[Outbox]) -> Callable[..., None]:
        def record(*entries: Any) -> None:
            started = time.perf_counter()
            self.timed(outbox, *entries)
            self.spent_us += (time.perf_counter() - started) * 1e6

        return record


def _one(phone: MobileClient, clock: _Clock, text: str) -> dict[str, float]:
    before = clock.spent_us
    answer: Classification = phone.classify(text)
    ledger_us = clock.spent_us - before
    attempt = answer.attempts[-1]
    round_trip, network = attempt.round_trip_ms or 0.0, attempt.network_ms or 0.0
    queue, compute = attempt.queue_ms or 0.0, attempt.compute_ms or 0.0
    rest_ms = answer.total_ms - answer.decision_ms - round_trip
    values = (
        answer.decision_ms * 1e3,
        ledger_us,
        max(0.0, rest_ms * 1e3 - ledger_us),
        network * 1e3,
        max(0.0, round_trip - network - queue - compute) * 1e3,
        queue * 1e3,
        compute * 1e3,
    )
    return dict(zip(PARTS, values, strict=True))


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
