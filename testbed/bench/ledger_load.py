"""Entries like those of real requests, and a ledger process to send them to."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shared.domain import Delivery, Difficulty, Reason, Side, State, Tier
from shared.ledger.entry import LedgerEntry
from testbed.processes.ports import free_ports
from testbed.processes.processes import Role, Testbed

DECISION = (
    '{"expected_values":{"mobile":-0.00591,"edge":-0.0049812,"cloud":-0.011},'
    '"expectation":{"right":[0.855,0.926,0.941],"sure":[0.912,0.939],"margin":0.41},"alpha":0.83}'
)


def pair(rng: random.Random) -> tuple[LedgerEntry, LedgerEntry]:
    """Return the caller's and the tier's entry of one request that an edge answered."""
    compute_ms, network_ms = rng.lognormvariate(0, 0.3), rng.lognormvariate(2, 0.5)
    started_at = time.time() - rng.random()
    request_id, attempt_id = (_dated_id(rng, started_at) for _ in range(2))
    answer: dict[str, Any] = {
        "attempt_id": attempt_id,
        "request_id": request_id,
        "tier": Tier.EDGE,
        "state": State.ANSWERED,
        "bundle_id": "2c18e6d32a4487d9",
        "started_at": started_at,
        "text_hash": uuid.UUID(int=rng.getrandbits(128)).hex,
        "text_chars": rng.randint(10, 200),
        "tokens": rng.randint(4, 60),
        "label": rng.choice(("negative", "positive")),
        "confidence": rng.uniform(0.5, 1.0),
        "exit_layer": rng.randint(1, 4),
        "queue_ms": rng.random(),
        "compute_ms": compute_ms,
        "tier_ms": compute_ms + 1.0,
    }
    costs = {
        "round_trip_ms": compute_ms + 1.0 + network_ms,
        "network_ms": network_ms,
        "sent_bytes": rng.randint(200, 900),
        "received_bytes": rng.randint(300, 500),
        "cost_lambda": 3.5,
        "all_cloud_lambda": 12.0,
        "cost_usd": 1.9e-6,
        "energy_mj": 0.35,
        "price_book": "2026-01",
        "decision": DECISION,
        "decision_ms": 0.2,
    }
    caller = LedgerEntry(
        **answer,
        **costs,
        side=Side.CALLER,
        reason=Reason.ROUTE,
        policy="cascade-routing",
        difficulty=Difficulty.MODERATE,
        writer="mobile",
        delivery=Delivery.ARRIVED,
        final=True,
    )
    return caller, LedgerEntry(**answer, side=Side.TIER, writer="edge")


def _dated_id(rng: random.Random, at: float) -> str:
    """Return an identifier as those of `shared.ids`, with a seeded random part."""
    return f"{int(at * 1e3):012x}7{rng.getrandbits(12):03x}8{rng.getrandbits(60):015x}"


def bodies(rng: random.Random, entries: int, batch: int) -> Iterator[bytes]:
    """Yield deliveries of ``batch`` entries each, as a shipper sends them; pairs stay together."""
    for start in range(0, entries, batch):
        size = min(batch, entries - start)
        rows = [side.model_dump_json() for _ in range(size // 2) for side in pair(rng)]
        yield f'{{"entries":[{",".join(rows)}]}}'.encode()


class LedgerProcess:
    """A running ledger service; ``url`` is its address."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self.pid = pid

    def peak_mb(self) -> float:
        """Return its largest resident memory since `reset_peak` in MB; 0 outside Linux."""
        with suppress(OSError):
            status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
        return 0.0

    def reset_peak(self) -> None:
        """Measure the peak from here on."""
        with suppress(OSError):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")


@contextmanager
def ledger_process(database_url: str, folder: Path) -> Iterator[LedgerProcess]:
    """Start a ledger service, and stop it at the end."""
    role = Role("ledger", "shared.ledger.server", free_ports(1)[0])
    with Testbed([role], folder, {"DIMEE_DATABASE_URL": database_url}) as testbed:
        testbed.start_all()
        yield LedgerProcess(role.url, testbed.processes["ledger"].pid)
