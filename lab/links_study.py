"""``python -m lab.links_study``: every profile's relay, measured against its label on loopback."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from lab.load.report import made_with
from shared.errors import DimeeError
from shared.links import LINKS, SOURCES
from shared.relay.client import LinkControl
from shared.relay.probe import measure

START_S = 20.0

HEAD = (
    "| link | RTT label, ms | measured | off | up label, Mbit/s | measured | off "
    "| down label, Mbit/s | measured | off |\n|" + "---|" * 10
)


def study(rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Measure each profile ``rounds`` times, each time a relay of its own."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in LINKS}
    for _ in range(rounds):
        for name, ours in found.items():
            with _relay(name) as control:
                ours.append(measure(control).as_json())
    return found


@contextmanager
def _relay(link: str) -> Iterator[LinkControl]:
    """A relay in a process of its own; behind it is nobody: the probe brings its own far end."""
    listen, port = _free_ports(2)
    settings = {"DIMEE_LINK": link, "DIMEE_LINK_LISTEN": f"127.0.0.1:{listen}"}
    settings |= {"DIMEE_PORT": str(port), "DIMEE_LINK_TARGET": "127.0.0.1:9"}
    process = subprocess.Popen([sys.executable, "-m", "shared.relay"], env=os.environ | settings)
    control = LinkControl("phone-edge", f"http://127.0.0.1:{port}")
    try:
        _wait(control, process)
        yield control
    finally:
        process.terminate()
        process.wait()


def _wait(control: LinkControl, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            control.show()
            return
        except DimeeError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [int(one.getsockname()[1]) for one in sockets]


def page(report: dict[str, Any]) -> str:
    """The table, the sources of the labels and how it was made."""
    rows = []
    for name, ours in report["links"].items():
        cells = [name]
        for what in ("rtt_ms", "up_mbps", "down_mbps"):
            off = [one["off"][what] for one in ours]
            measured = statistics.median(one[what] for one in ours)
            worst = max(off, key=abs)
            cells += [f"{ours[0][f'label_{what}']:g}", f"{measured:.2f}", f"{worst:+.1%}"]
        rows.append("| " + " | ".join(cells) + " |")
    machine = report["machine"]
    sources = [f"- {name}: {source}" for name, source in SOURCES.items()]
    return "\n".join(
        [
            "# Emulated links against their labels",
            "",
            f"{report['made_at']}, commit {report['commit']}, {machine['cores']} cores (load "
            f"before: {machine['load_before']:.1f}), {machine['system']}, Python "
            f"{machine['python']}: `python -m lab.links_study`. Medians of {report['rounds']} "
            "relays of each profile, and the worst of them as a share of the label. A run whose "
            "link is off by more than 10 % gets no label.",
            "",
            HEAD,
            *rows,
            "",
            "Sources of the labels:",
            "",
            *sources,
            "",
        ]
    )


@click.command()
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1, 100))
@click.option("--out", type=click.Path(path_type=Path), default=Path("links"), show_default=True)
def main(rounds: int, out: Path) -> None:
    """Write OUT.json and OUT.md."""
    report = {"rounds": rounds, **made_with(), "links": study(rounds)}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_name(out.name + ".json").write_text(json.dumps(report, indent=1) + "\n")
    out.with_name(out.name + ".md").write_text(page(report))
    click.echo(page(report))


if __name__ == "__main__":
    main()
