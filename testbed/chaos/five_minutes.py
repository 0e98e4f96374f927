"""50 requests/s while every process is killed: ``python -m testbed.chaos.five_minutes``.

Edge, cloud and ledger are killed, and every link is cut; the mobile, whom the requests are sent to,
is not: with it gone there is nobody to answer, which `testbed.chaos.schedules` tries.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from shared.ledger.client import LedgerClient
from testbed.chaos.fault_injector import HOPS, victim
from testbed.chaos.invariants import broken
from testbed.chaos.schedules import DEADLINE_S, Fault, run_schedule
from testbed.chaos.traffic import Outcome, complaint

KILLED = ("edge", "cloud", "ledger")
WINDOW_S = 5.0


def in_turn(seconds: float) -> list[Fault]:
    """One fault after the other, evenly; a cut lasts a third of the time to the next."""
    things = [*(("kill", name) for name in KILLED), *(("link", name) for name in HOPS)]
    step = seconds / (len(things) + 1)
    return [
        Fault(round((i + 0.7) * step, 2), what, name, step / 3, "cut" if what == "link" else None)
        for i, (what, name) in enumerate(things)
    ]


def timeline(outcomes: Sequence[Outcome], seconds: float) -> list[dict[str, Any]]:
    """For every `WINDOW_S`: how many were sent, how they ended, and the slowest."""
    rows = []
    for number in range(int(seconds // WINDOW_S)):
        since = number * WINDOW_S
        here = [one for one in outcomes if since <= one.planned.at_s < since + WINDOW_S]
        took = [one.took_s * 1e3 for one in here if one.status == 200]
        rows.append(
            {
                "at_s": since,
                "sent": len(here),
                "answered": len(took),
                "p50_ms": round(float(np.percentile(took, 50)), 1) if took else None,
                "p99_ms": round(float(np.percentile(took, 99)), 1) if took else None,
            }
        )
    return rows


@click.command()
@click.option("--seconds", default=300.0, show_default=True)
@click.option("--rate", default=50.0, show_default=True, help="Requests a second.")
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--restart-after", "restart_after_s", default=3.0, show_default=True, help="After so long."
)
@click.option("--out", type=click.Path(path_type=Path), help="Write the figures there (JSON).")
def main(seconds: float, rate: float, seed: int, restart_after_s: float, out: Path | None) -> None:
    """Exit 1 unless all ended in time, 99.5 % were answered, and the ledger has it all, once."""
    faults = in_turn(seconds)
    before = os.getloadavg()
    with victim(seed, restart_after_s) as bed:
        outcomes, _ = asyncio.run(run_schedule(bed, seed, seconds, rate, faults))
        healed = time.monotonic()
        bed.heal()
        ledger = LedgerClient(bed.bed.ledger_url)
        said = broken(outcomes, ledger, DEADLINE_S)
        report = ledger.verify()
        ledger.close()
    took = [one.took_s * 1e3 for one in outcomes if one.status == 200]
    answered = len(took) / max(len(outcomes), 1)
    found = {
        "seconds": seconds,
        "rate": rate,
        "seed": seed,
        "deadline_s": DEADLINE_S,
        "requests": len(outcomes),
        "answered_share": round(answered, 5),
        "by_status": dict(Counter(str(one.status) for one in outcomes)),
        "errors": dict(Counter(one.error for one in outcomes if one.error).most_common(10)),
        "no_answer_in_time": sum(complaint(one, DEADLINE_S) is not None for one in outcomes),
        "p50_ms": round(float(np.percentile(took, 50)), 1) if took else None,
        "p99_ms": round(float(np.percentile(took, 99)), 1) if took else None,
        "verify_clean": report.consistent,
        "attempts": report.caller_rows,
        "settled_s": round(time.monotonic() - healed, 1),
        "cores": os.cpu_count(),
        "load_average": [before, os.getloadavg()],
        "broken": said,
        "faults": [asdict(fault) for fault in faults],
        "timeline": timeline(outcomes, seconds),
    }
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    hidden = ("timeline", "faults")
    shown = {name: value for name, value in found.items() if name not in hidden}
    click.echo(json.dumps(shown, indent=2))
    sys.exit(0 if not said and answered >= 0.995 else 1)


if __name__ == "__main__":
    main()
