"""A PostgreSQL ledger of many days: ``python -m testbed.bench.ledger_days``.

The entries of past days are made by the database itself from a thousand real ones; those of today
are delivered over HTTP, as shippers do.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import httpx

from shared.files import prepare_output
from shared.ids import first_id
from shared.ledger.entry import LedgerEntry
from shared.ledger.server.bulk_insert import ENTRY_COLUMNS, insert_entries
from shared.ledger.server.partitions import partition_of
from shared.ledger.server.prune import prune
from shared.ledger.server.store import LedgerStore
from shared.program import run_program
from testbed.bench.cpu_meter import CpuMeter
from testbed.bench.ledger import empty_databases, fill_in_parallel
from testbed.bench.ledger_load import bodies, ledger_process, pair
from testbed.load.provenance import provenance
from testbed.processes.temporary import temporary_folder

SAMPLES = 500
BATCH_ENTRIES = 500
DAY_S = 86_400.0
DELIVERED = 200_000
REQUEST_ENTRIES, SMALL_ENTRIES, SMALL_SENDERS = 4, 12_000, 8
"""Deliveries as of devices that deliver each request alone: their entries, all entries, senders."""
_HASH = "md5(sample.request_id || copy || '{day}')"
_DIGITS = (
    "lpad(to_hex({first_ms} + (copy - 1) * (86400000 / {copies}) + sample.ordinal_ms), 12, '0')"
)


def make_day(store: LedgerStore, day: date, entries: int) -> float:
    """Add so many entries of a day, both sides of each attempt; return the seconds it took."""
    copies = entries // (2 * SAMPLES)
    first_ms = int(first_id(day), 16)
    digits = _DIGITS.format(first_ms=first_ms, copies=copies)
    random_part = _HASH.format(day=day)
    values: dict[str, str] = {name: f"sample.{name}" for name in ENTRY_COLUMNS}
    for name, offset in (("attempt_id", 1), ("request_id", 17)):
        values[name] = (
            f"{digits} || '7' || substr({random_part}, {offset}, 3) || '8' || "
            f"substr({random_part}, {offset % 16 + 1}, 15)"
        )
    values["started_at"] = f"({first_ms} / 1000.0 + copy * 86400.0 / {copies})"
    columns = ", ".join([*values, "received_at", "day"])
    query = (
        f"INSERT INTO {partition_of(day)} ({columns}) "
        f"SELECT {', '.join(values.values())}, {first_ms / 1e3 + DAY_S}, DATE '{day}' "
        f"FROM generate_series(1, {copies}) copy, "
        "(SELECT *, mod(abs(hashtext(request_id)), 1000) AS ordinal_ms FROM sample) sample"
    )
    started = time.perf_counter()
    store.partitions.prepare([_entry_of(day)])
    with store.connect() as connection:
        connection.exec_driver_sql(query)
    return time.perf_counter() - started


def _entry_of(day: date) -> LedgerEntry:
    caller, _ = pair(random.Random(1))
    return caller.model_copy(update={"attempt_id": f"{first_id(day)}7{0:03x}8{0:015x}"})


def make_samples(store: LedgerStore, seed: int) -> None:
    """Create the table of the entries that every day repeats."""
    rng = random.Random(seed)
    with store.connect() as connection:
        insert_entries(connection, [side for _ in range(SAMPLES) for side in pair(rng)], 1.0)
        connection.exec_driver_sql("CREATE TABLE sample AS SELECT * FROM entries")
        connection.exec_driver_sql("DELETE FROM entries")


class Figures(dict[str, Any]):
    """Figures by name, written to ``out`` after each, so that an interrupted run has some."""

    def __init__(self, out: Path | None, **known: Any) -> None:
        super().__init__(**known)
        self._out = out
        self.meter: CpuMeter | None = None
        """Meter of the ledger, while it runs."""
        if out is not None:
            prepare_output(out, "out")

    def note(self, name: str, value: float) -> None:
        """Add a figure and print it."""
        self[name] = round(value, 3)
        click.echo(f"{time.strftime('%H:%M:%S')} {name}: {self[name]:,}")
        if self._out is not None:
            facts = self | {"load_after": os.getloadavg()[0]}
            self._out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds that the block takes, and the CPU seconds of ledger and database."""
        cpu_s = self.meter.read() if self.meter else {}
        started = time.perf_counter()
        yield
        self.note(name, time.perf_counter() - started)
        for process, spent_s in (self.meter.read() if self.meter else {}).items():
            self.note(f"{name}_cpu_{process}", spent_s - cpu_s[process])


def _get(url: str, path: str) -> dict[str, Any]:
    response = httpx.get(f"{url}{path}", timeout=1800.0, trust_env=False)
    response.raise_for_status()
    return dict(response.json())


@click.command()
@click.option("--entries", default=10_000_000, show_default=True, help="Entries of all past days.")
@click.option("--days", default=10, show_default=True, help="Number of past days.")
@click.option("--delivered", default=DELIVERED, show_default=True, help="Entries sent over HTTP.")
@click.option("--seed", default=7, show_default=True, help="Seed of the entries.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures to this JSON file.")
def main(entries: int, days: int, delivered: int, seed: int, out: Path | None) -> None:
    """Fill days of a PostgreSQL ledger, and measure intake, verify, summary and prune."""
    figures = Figures(out, entries=entries, days=days, delivered=delivered, **provenance())
    today = datetime.now(UTC).date()
    with temporary_folder("bench") as folder, empty_databases(folder, ("postgresql",)) as urls:
        url = urls["postgresql"]
        store = LedgerStore(url)
        make_samples(store, seed)
        per_day = entries // days
        with figures.timed("fill_s"):
            for age in range(days, 0, -1):
                took_s = make_day(store, today - timedelta(age), per_day)
                click.echo(f"{today - timedelta(age)}: {per_day:,} entries in {took_s:.0f} s")
        with figures.timed("analyze_s"), store.connect() as connection:
            connection.exec_driver_sql("ANALYZE entries")
        figures.note("database_bytes", store.size_bytes())
        sent, small = (
            list(bodies(random.Random(seed + number), count, size))
            for number, count, size in (
                (1, delivered, BATCH_ENTRIES),
                (2, SMALL_ENTRIES, REQUEST_ENTRIES),
            )
        )
        with ledger_process(url, folder / "ledger") as ledger:
            figures.meter = CpuMeter(ledger.pid, folder / "pg")
            past = today - timedelta(days // 2 or 1)
            with figures.timed("intake_s"):
                fill_in_parallel(ledger.url, sent)
            with figures.timed("small_deliveries_s"):
                fill_in_parallel(ledger.url, small, SMALL_SENDERS)
            for name, path in (
                ("verify_of_a_day_s", f"/v1/verify?day={past}"),
                ("verify_s", "/v1/verify"),
                ("summary_s", "/v1/summary"),
                ("last_200_s", "/v1/last-requests?last=200"),
            ):
                ledger.reset_peak()
                before_mb = ledger.peak_mb()
                with figures.timed(name):
                    answer = _get(ledger.url, path)
                figures.note(name.removesuffix("_s") + "_more_mb", ledger.peak_mb() - before_mb)
                if "verify" in name:
                    expected = per_day * (1 if "day" in name else days)
                    expected += 0 if "day" in name else delivered + SMALL_ENTRIES
                    rows = answer["caller_rows"] + answer["tier_rows"]
                    if answer["total_findings"] or rows != expected:
                        raise RuntimeError(f"the ledger lost or invented entries: {answer}")
            figures.meter = None
        with figures.timed("prune_of_a_day_s"):
            removed = prune(store, (days - 1) * DAY_S - 1)
        figures.note("pruned_entries", removed.entries)
        store.close()


if __name__ == "__main__":
    run_program(main)
