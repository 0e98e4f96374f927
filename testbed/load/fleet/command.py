"""Options of ``dimee load`` for a fleet, and what it prints and writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mobile_client.client import load_settings
from shared.cpus import usable_cores
from shared.errors import DimeeError, InvalidInput
from testbed.links.probe import TOLERANCE
from testbed.load.fleet.mix import read_mix
from testbed.load.fleet.report import fleet_lines, fleet_report
from testbed.load.fleet.run import FleetOptions, check, run_fleet
from testbed.load.provenance import provenance
from testbed.load.texts import digest_of, texts_to_send
from testbed.up import describe_bundle

FLEET_OPTIONS = (
    "devices", "mix", "processes", "edge_replicas", "cloud_replicas", "database_url",
    "duration_s", "seed", "texts", "allow_unverified", "bundle", "out",
)  # fmt: skip
"""Parameters of ``dimee load`` that a fleet uses."""


def fleet_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a fleet to ``dimee load``."""
    for option in (
        click.option("--database-url", help="Database of the fleet's ledger; SQLite by default."),
        click.option(
            "--cloud-replicas",
            type=click.IntRange(1, 16),
            default=1,
            help="Number of clouds of the fleet.  [default: 1]",
        ),
        click.option(
            "--edge-replicas",
            type=click.IntRange(1, 16),
            default=1,
            help="Number of edges of the fleet.  [default: 1]",
        ),
        click.option(
            "--processes",
            type=click.IntRange(1, 64),
            help="Number of processes that the devices run in.  [default: one a core]",
        ),
        click.option(
            "--mix",
            type=click.Path(path_type=Path),
            help="JSON file with the classes of the devices: share, link, policy, rate, budget.",
        ),
        click.option(
            "--devices",
            type=click.IntRange(1, 100_000),
            help="Simulate so many mobiles, each with a link, a budget and an outbox of its own.",
        ),
    ):
        command = option(command)
    return command


def run_command(out: Path, allow_unverified: bool, options: dict[str, Any]) -> None:
    """Run a fleet, write its report and print it; raises `DimeeError`."""
    # needs the extra testbed, without which dimee --help must work
    from testbed.load.fleet.page import fleet_page

    if options["mix"] is None:
        raise InvalidInput("--devices: give the classes of the devices with --mix FILE")
    origin = provenance()
    mix_file: Path = options["mix"]
    fleet = FleetOptions(
        devices=options["devices"],
        mix=read_mix(mix_file),
        mix_file=mix_file,
        duration_s=options["duration_s"],
        seed=options["seed"],
        processes=options["processes"] or usable_cores(),
        replicas={"edge": options["edge_replicas"], "cloud": options["cloud_replicas"]},
        bundle=Path(load_settings(bundle=options["bundle"]).bundle),
        database_url=options["database_url"],
    )
    counts = check(fleet)
    bundle = describe_bundle(options)
    texts = texts_to_send(bundle, options["texts"], options, fleet.seed)
    result = run_fleet(fleet, counts, texts)
    unverified = [link["hop"] for link in result["links"] if not link["verified"]]
    facts = {
        "duration_s": fleet.duration_s,
        "seed": fleet.seed,
        "mix": fleet.mix.model_dump(),
        "mix_file": str(mix_file),
        "bundle_id": bundle.bundle_id,
        "texts_sha256": digest_of(texts),
        "unverified_links": unverified,
        **origin,
    }
    report = fleet_report(facts, result)
    names = [out.with_name(f"{out.name}.{kind}") for kind in ("json", "html")]
    names[0].write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    names[1].write_text(fleet_page(report), encoding="utf-8")
    for line in fleet_lines(report):
        click.echo(line)
    click.echo(f"written: {names[0]} and {names[1]}")
    if unverified and not allow_unverified:
        raise DimeeError(
            f"the links of {', '.join(unverified)} deviate by more than {TOLERANCE:.0%}; use a "
            "quieter machine, or accept it with --allow-unverified"
        )
    if not report["requests"]:
        raise DimeeError(
            f"load: no request fell into the {fleet.duration_s:g} s; raise --duration or the mix's "
            "requests_per_s"
        )
    if not report["answered"]:
        raise DimeeError(f"load: none of {report['requests']:,} requests was answered")
