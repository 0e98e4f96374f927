"""Every profile of `shared.link_profiles` through a relay of its own, measured against its label.

``python -m testbed.load.link_accuracy --out docs/benchmarks/2026-11-23-links`` writes OUT.json and
OUT.md, on loopback only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from shared.errors import DimeeError
from shared.link_profiles import LINKS, SOURCES
from testbed.links.client import LinkControl
from testbed.links.probe import TOLERANCE, measure
from testbed.load.report import made_with
from testbed.load.target import free_ports

START_S = 30.0
HEAD = (
    "| link | RTT, ms: label | measured | off | up, Mbit/s: label | measured | off "
    "| down, Mbit/s: label | measured | off | within 10 % |\n|---|" + "--:|" * 9 + "---|\n"
)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="OUT.json, OUT.md.")
def main(out: Path) -> None:
    """Measure all profiles, one after the other; exits with 1 if one is off its label."""
    made = made_with() | {"command": f"python -m testbed.load.link_accuracy --out {out}"}
    report: dict[str, Any] = {"tolerance": TOLERANCE, **made, "links": []}
    for name in LINKS:
        with relay(name) as control:
            measured = measure(control)
        click.echo(measured.line())
        report["links"].append(measured.as_json())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_name(out.name + ".json").write_text(json.dumps(report, indent=1) + "\n")
    out.with_name(out.name + ".md").write_text(page(report, out.name + ".json"), encoding="utf-8")
    if not all(one["holds"] for one in report["links"]):
        raise SystemExit(1)


@contextmanager
def relay(words: str) -> Iterator[LinkControl]:
    """A link in a process of its own, ended afterwards; nobody asks over it but the probe."""
    listen, target, port = free_ports(3)
    settings = {
        "DIMEE_LINK": words,
        "DIMEE_LINK_LISTEN": f"127.0.0.1:{listen}",
        "DIMEE_LINK_TARGET": f"127.0.0.1:{target}",
        "DIMEE_HOST": "127.0.0.1",
        "DIMEE_PORT": str(port),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "testbed.links"],
        env=os.environ | settings,
        stdin=subprocess.DEVNULL,
    )
    try:
        yield stands(LinkControl(words, f"http://127.0.0.1:{port}"), process)
    finally:
        process.terminate()
        process.wait()


def stands(control: LinkControl, process: subprocess.Popen[bytes]) -> LinkControl:
    """Wait until a relay's process answers; raises `DimeeError` if it ends or never does."""
    until = time.monotonic() + START_S
    while True:
        try:
            control.show()
            return control
        except DimeeError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.05)


def page(report: dict[str, Any], source: str) -> str:
    """The report as Markdown."""
    lines = [_row(one) for one in report["links"]]
    held = sum(one["holds"] for one in report["links"])
    machine = report["machine"]
    sources = "\n".join(f"- {name}: {SOURCES[name]}" for name in LINKS)
    trims = ", ".join(f"{one['words']} {one['trim_ms']:.3f}" for one in report["links"])
    return f"""# Emulated links against their labels

{held} of {len(lines)} profiles are within {report["tolerance"]:.0%} of their label in round trip
and both rates. Each was measured through a relay of its own on loopback: round trips of one byte
(median; 31 to 301), one bulk transfer each way (a second try where the first was off).

{HEAD}{"".join(lines)}
What the relay itself adds is found by the same round trips and taken off its delay, in ms one way:
{trims}. Loss is 0 in every profile.

Made with `{report["command"]}`
at {report["made_at"]}, commit {report["commit"]}, on {machine["cores"]} cores, {machine["system"]},
load {machine["load_before"]:.2f} before; all figures: [{source}]({source}).
`dimee up --link` and `dimee load` measure their own links again and refuse one that is off.

Where the labels are from:

{sources}
"""


def _row(one: dict[str, Any]) -> str:
    cells = [one["words"]]
    for what in ("rtt_ms", "up_mbps", "down_mbps"):
        cells += [f"{one['label_' + what]:g}", f"{one[what]:.2f}", f"{one['off'][what]:+.1%}"]
    return "| " + " | ".join([*cells, "yes" if one["holds"] else "no"]) + " |\n"


if __name__ == "__main__":
    main()
