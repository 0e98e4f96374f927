"""Every kind of fault in turn at 50 requests/s: ``python -m testbed.chaos.five_minutes``.

Edge, cloud and ledger are killed, and every link stalls. The mobile is not killed, since it answers
the requests; `testbed.chaos.schedules` does that.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from shared.program import run_program
from testbed.chaos.fault_injector import HOPS, start_fault_injector
from testbed.chaos.invariants import violations
from testbed.chaos.output import out_option, write_figures
from testbed.chaos.schedules import DEADLINE_S, TimedFault, send_with_faults
from testbed.chaos.traffic import Outcome, violation
from testbed.load.ledger_check import verify_ledger
from testbed.load.tally import percentile_ms

KILLED = ("edge", "cloud", "ledger")
WINDOW_S = 5.0
MIN_ANSWERED = 0.995


def faults_in_turn(seconds: float) -> list[TimedFault]:
    """Return one fault after the other at even distances; an outage lasts a third of a distance."""
    targets = [*(("kill", name) for name in KILLED), *(("link", name) for name in HOPS)]
    step = seconds / (len(targets) + 1)
    return [
        TimedFault(
            round((i + 0.7) * step, 2), kind, name, step / 3, "stall" if kind == "link" else None
        )
        for i, (kind, name) in enumerate(targets)
    ]


def timeline(outcomes: Sequence[Outcome], seconds: float) -> list[dict[str, Any]]:
    """Return counts and latencies for every `WINDOW_S` of intended send times."""
    rows = []
    for number in range(int(seconds // WINDOW_S)):
        start = number * WINDOW_S
        window = [
            outcome for outcome in outcomes if start <= outcome.planned.at_s < start + WINDOW_S
        ]
        latencies = [outcome.latency_s for outcome in window if outcome.status == 200]
        rows.append(
            {
                "at_s": start,
                "sent": len(window),
                "answered": len(latencies),
                "p50_ms": percentile_ms(latencies, 50),
                "p99_ms": percentile_ms(latencies, 99),
            }
        )
    return rows


@click.command()
@click.option("--seconds", default=300.0, show_default=True, help="Length of the run in seconds.")
@click.option("--rate", default=50.0, show_default=True, help="Requests a second.")
@click.option("--seed", default=1, show_default=True, help="Seed of arrivals, texts and links.")
@click.option(
    "--restart-after",
    "restart_after_s",
    default=3.0,
    show_default=True,
    help="Seconds until a killed process is restarted.",
)
@out_option
def main(seconds: float, rate: float, seed: int, restart_after_s: float, out: Path | None) -> None:
    """Inject one fault after the other under a constant load.

    Exit with 1 if an invariant is violated or fewer than 99.5 % of the requests are answered.
    """
    faults = faults_in_turn(seconds)
    load_before = os.getloadavg()
    with start_fault_injector(seed, restart_after_s) as injector:
        outcomes, _, _ = asyncio.run(send_with_faults(injector, seed, seconds, rate, faults))
        healed = time.monotonic()
        injector.heal()
        ledger_url = injector.target.ledger_url
        violated = violations(outcomes, ledger_url, DEADLINE_S)
        settled_s = time.monotonic() - healed
        ledger = verify_ledger(ledger_url, requests=0)
    violated += injector.left_behind
    latencies = [outcome.latency_s for outcome in outcomes if outcome.status == 200]
    answered_share = len(latencies) / max(len(outcomes), 1)
    figures = {
        "seconds": seconds,
        "rate": rate,
        "seed": seed,
        "deadline_s": DEADLINE_S,
        "requests": len(outcomes),
        "answered_share": round(answered_share, 5),
        "by_status": dict(Counter(str(outcome.status) for outcome in outcomes)),
        "errors": dict(
            Counter(outcome.error for outcome in outcomes if outcome.error).most_common(10)
        ),
        "not_in_time": sum(violation(outcome, DEADLINE_S) is not None for outcome in outcomes),
        "p50_ms": percentile_ms(latencies, 50),
        "p99_ms": percentile_ms(latencies, 99),
        "ledger_consistent": ledger["consistent"],
        "attempts": ledger.get("caller_rows"),
        "settled_s": round(settled_s, 1),
        "cores": os.cpu_count(),
        "load_average": [load_before, os.getloadavg()],
        "violations": violated,
        "faults": [asdict(fault) for fault in faults],
        "timeline": timeline(outcomes, seconds),
    }
    write_figures(figures, out, only_in_file=("timeline", "faults"))
    sys.exit(0 if not violated and answered_share >= MIN_ANSWERED else 1)


if __name__ == "__main__":
    run_program(main)
