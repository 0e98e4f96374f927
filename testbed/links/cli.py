"""``dimee link``: show, change and measure the links of a running testbed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from mobile_client.client import load_settings
from shared.errors import DimeeError
from shared.link_control import LinkControl
from shared.testbed_file import read_testbed_file
from testbed.links.hops import HOPS
from testbed.links.probe import describe, measure
from testbed.links.schedule import read_schedule_file

_state_dir = click.option(
    "--state-dir", type=click.Path(path_type=Path), help="State folder of the running testbed."
)
_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_hop = click.argument("hop", type=click.Choice(list(HOPS)))


@click.group()
def link() -> None:
    """Show and change the emulated links of a running testbed."""


@link.command()
@_as_json
@_state_dir
def show(as_json: bool, state_dir: Path | None) -> None:
    """Print the state of each link, and how many bytes and connections have passed it."""
    reports = {name: control.report() for name, control in _controls(state_dir).items()}
    if as_json:
        click.echo(json.dumps(reports, indent=2))
        return
    for name, report in reports.items():
        click.echo(_line(name, report))


@link.command("set")
@_hop
@click.argument("spec", metavar="LINK")
@_state_dir
def set_link(hop: str, spec: str, state_dir: Path | None) -> None:
    """Change a link from now on.

    LINK is a profile with or without changes (3g; 4g,loss=0.01,up_mbps=2), "stall" (no byte
    passes), "reset" (connections break and new ones are refused), "reset-after-accept" (new ones
    are accepted and then break), or @FILE (a schedule).
    """
    control = _control(hop, state_dir)
    if spec.startswith("@"):
        report = control.run_schedule(read_schedule_file(Path(spec[1:])))
    else:
        report = control.change(spec)
    click.echo(_line(hop, report))


@link.command()
@_hop
@_as_json
@_state_dir
def probe(hop: str, as_json: bool, state_dir: Path | None) -> None:
    """Measure a link; exit with 2 if it deviates from its specification by more than 10 %."""
    measurement = measure(_control(hop, state_dir))
    figures = measurement.as_json()
    click.echo(json.dumps(figures, indent=2) if as_json else describe(figures))
    measurement.raise_if_unverified()


def _controls(state_dir: Path | None) -> dict[str, LinkControl]:
    folder = Path(load_settings(state_dir=state_dir).state_dir)
    links = read_testbed_file(folder)["links"]
    if not links:
        raise DimeeError("the testbed has no links; start it with: dimee up --link mobile-edge=4g")
    return {name: LinkControl(name, facts["control"]) for name, facts in links.items()}


def _control(hop: str, state_dir: Path | None) -> LinkControl:
    controls = _controls(state_dir)
    if hop not in controls:
        raise DimeeError(
            f"the testbed has no link on {hop}, only on {', '.join(controls)}; "
            f"start it with: dimee up --link {hop}=lan"
        )
    return controls[hop]


def _line(hop: str, report: dict[str, Any]) -> str:
    link = report["link"]
    return (
        f"{hop:<12} {report['spec']:<16} RTT {2 * link['one_way_ms']:g} ms ± "
        f"{2 * link['jitter_ms']:g}, up {link['up_mbps']:g}, down {link['down_mbps']:g} Mbit/s, "
        f"loss {link['loss']:.1%}; {report['open_connections']} connections, "
        f"{report['up_bytes']:,} B up, {report['down_bytes']:,} B down, "
        f"{report['retransmissions']} retransmissions"
    )
