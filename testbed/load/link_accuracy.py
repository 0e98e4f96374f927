"""Measurement of every link profile of `shared.link_profiles` through a relay of its own.

``python -m testbed.load.link_accuracy --out docs/benchmarks/2026-11-23-links`` writes OUT.json and
OUT.md. All traffic stays on loopback.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from shared.extras import TESTBED, imports_of
from shared.link_control import LinkControl
from shared.link_profiles import LINKS, SOURCES
from shared.program import run_program
from testbed.links.hops import Hop
from testbed.links.probe import TOLERANCE, describe, measure
from testbed.load.provenance import provenance
from testbed.processes.ports import free_ports
from testbed.processes.processes import Testbed
from testbed.processes.temporary import temporary_folder

with imports_of("testbed.load.link_accuracy", *TESTBED):
    from testbed.load.templates import environment


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Write the figures to OUT.json and OUT.md.",
)
def main(out: Path) -> None:
    """Measure all profiles, one after the other; exit with 1 if one deviates by more than 10 %."""
    origin = provenance() | {"command": f"python -m testbed.load.link_accuracy --out {out}"}
    report: dict[str, Any] = {"tolerance": TOLERANCE, **origin, "links": []}
    for name in LINKS:
        with relay(name) as control:
            measurement = measure(control).as_json()
        click.echo(describe(measurement))
        report["links"].append(measurement)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_name(out.name + ".json").write_text(json.dumps(report, indent=1) + "\n")
    out.with_name(out.name + ".md").write_text(page(report, out.name + ".json"), encoding="utf-8")
    if not all(link["verified"] for link in report["links"]):
        raise SystemExit(1)


@contextmanager
def relay(spec: str) -> Iterator[LinkControl]:
    """Run a relay process with a link; only the probe sends traffic through it."""
    listen, target, control = free_ports(3)
    hop = Hop(spec, spec, listen, control)
    with (
        temporary_folder("relay") as folder,
        Testbed([hop.role(target)], folder, {}) as testbed,
    ):
        testbed.start_all()
        yield hop.control


def page(report: dict[str, Any], source: str) -> str:
    """Return the report as Markdown; ``source`` is the name of its JSON file."""
    template = environment().get_template("link_accuracy.md.j2")
    return template.render(report=report, source=source, sources=SOURCES, profiles=list(LINKS))


if __name__ == "__main__":
    run_program(main)
