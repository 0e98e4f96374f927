"""Entries like those of real requests, and a ledger process of the benchmark's own."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from shared.domain import Delivery, Difficulty, Reason, Side, State, Tier
from shared.ledger.entry import LedgerEntry

DECISION = (
    '{"expected_values":{"mobile":-0.00591,"edge":-0.0049812,"cloud":-0.011},'
    '"expectation":{"right":[0.855,0.926,0.941],"sure":[0.912,0.939],"margin":0.41},"alpha":0.83}'
)


def pair(rng: random.Random) -> tuple[LedgerEntry, LedgerEntry]:
    """Both sides of one request that an edge answered, as mobile and edge book them."""
    compute_ms, network_ms = rng.lognormvariate(0, 0.3), rng.lognormvariate(2, 0.5)
    said: dict[str, Any] = {
        "attempt_id": uuid.UUID(int=rng.getrandbits(128)).hex,
        "request_id": uuid.UUID(int=rng.getrandbits(128)).hex,
        "tier": Tier.EDGE,
        "state": State.ANSWERED,
        "bundle_id": "2c18e6d32a4487d9",
        "started_at": 1.7e9 + rng.random() * 1e6,
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
    bill = {
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
        **said,
        **bill,
        side=Side.CALLER,
        reason=Reason.ROUTE,
        policy="cascade-routing",
        difficulty=Difficulty.MODERATE,
        writer="mobile",
        delivery=Delivery.ARRIVED,
        final=True,
    )
    return caller, LedgerEntry(**said, side=Side.TIER, writer="edge")


def bodies(rng: random.Random, entries: int, batch: int) -> Iterator[bytes]:
    """Deliveries of ``batch`` entries each, as a shipper sends them; whole pairs."""
    for start in range(0, entries, batch):
        size = min(batch, entries - start)
        rows = [side.model_dump_json() for _ in range(size // 2) for side in pair(rng)]
        yield f'{{"entries":[{",".join(rows)}]}}'.encode()


class LedgerProcess:
    """A running ``python -m shared.ledger.server``; ``url`` is where it listens."""

    def __init__(self, database_url: str, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "shared.ledger.server"],
            env=os.environ
            | {
                "DIMEE_PORT": str(port),
                "DIMEE_DATABASE_URL": database_url,
                "DIMEE_STATE_DIR": str(folder),
            },
        )
        until = time.monotonic() + 60
        while time.monotonic() < until and self._process.poll() is None:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/readyz", trust_env=False).is_success:
                    return
            time.sleep(0.05)
        raise RuntimeError("the benchmark's ledger did not start")

    def peak_mb(self) -> float:
        """Its largest resident memory since `forget_peak`, in MB; 0 where the system hides it."""
        with suppress(OSError):
            status = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
        return 0.0

    def forget_peak(self) -> None:
        """Measure the peak from here on."""
        with suppress(OSError):
            Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def stop(self) -> None:
        """End the process and wait for it."""
        self._process.terminate()
        self._process.wait(30)


@contextmanager
def ledger_process(database_url: str, folder: Path) -> Iterator[LedgerProcess]:
    """Start one and stop it at the end."""
    process = LedgerProcess(database_url, folder)
    try:
        yield process
    finally:
        process.stop()
