"""``dimee bench``."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lab.data.examples import load_examples
from lab.data.tasks import get_task
from shared.bundle.loading import Bundle, load_bundle, tier_layers
from shared.errors import InvalidInput
from shared.settings import default_bundle
from testbed.bench.anatomy import anatomy, picture
from testbed.bench.bare import bare_loop, early_exit
from testbed.bench.growth import growth
from testbed.bench.page import page
from testbed.bench.peers import PEERS, Peer, versions
from testbed.bench.runs import Course, choose_variants, race, race_open
from testbed.bench.runtimes import runtimes
from testbed.bench.setup import make_models, make_venvs

PARTS = ("servers", "open", "bare", "early-exit", "runtimes", "anatomy", "growth")


@click.command()
@click.option("--data", required=True, help="Folder or hub name of the texts, as for dimee train.")
@click.option("--bundle", type=click.Path(path_type=Path), help="Folder of the bundle.")
@click.option(
    "--venvs",
    type=click.Path(path_type=Path),
    default=Path("bench-venvs"),
    show_default=True,
    help="Where the other servers are installed, and the models that they read.",
)
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="All, if left out.")
@click.option("--only", multiple=True, help="A server by name; all, if left out.")
@click.option("--runs", default=5, show_default=True, type=click.IntRange(1, 100))
@click.option("--seconds", default=5.0, show_default=True, type=click.FloatRange(0.5, 120))
@click.option("--seed", default=1, show_default=True, help="Of the arrivals in the open loop.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("bench"),
    show_default=True,
    help="OUT.json and OUT.md; what OUT.json holds of other parts is kept.",
)
def bench(bundle: Path | None, venvs: Path, out: Path, **options: Any) -> None:
    """Serve the same weights and texts with this project and with others, and compare.

    One server after the other on this machine's cores, with the same client, one text a request.
    """
    loaded = load_bundle(bundle or default_bundle())
    task = get_task(loaded.manifest.task)
    if task.pair_field is not None:
        raise InvalidInput(f"bundle: {task.name} has pairs; bench takes a task of single texts")
    texts = [one.text for one in load_examples(options["data"], task, "validation")]
    peers = [peer for peer in PEERS if not options["only"] or peer.name in options["only"]]
    if not peers:
        raise InvalidInput(f"--only: choose from {', '.join(peer.name for peer in PEERS)}")
    parts = options["parts"] or PARTS
    if {"servers", "open"} & set(parts):
        make_venvs(peers, venvs, click.echo)
    models = make_models(loaded, venvs / "models", click.echo)
    course = Course(
        texts,
        venvs.resolve(),
        {name: model.resolve() for name, model in models.items()},
        _free_port(),
        options["seconds"],
        options["runs"],
        options["seed"],
        click.echo,
    )
    _measure(loaded, peers, course, parts, out)


def _measure(
    bundle: Bundle, peers: list[Peer], course: Course, parts: tuple[str, ...], out: Path
) -> None:
    json_file = out.with_name(out.name + ".json")
    report: dict[str, Any] = json.loads(json_file.read_text()) if json_file.is_file() else {}
    manifest = bundle.manifest
    layers = tier_layers(bundle, None, None)
    steps: dict[str, Callable[[], Any]] = {
        "servers": lambda: _servers(peers, course),
        "open": lambda: _open(peers, course, report),
        "bare": lambda: {
            name: bare_loop(course.models[name], course.texts, course.runs)
            for name in ("shipped", "fp32")
        },
        "early-exit": lambda: {
            tier: early_exit(
                course.models["shipped"], course.texts, manifest.alpha, last, course.runs
            )
            for tier, last in (("cloud", layers.cloud.last), ("edge", layers.edge.last))
        },
        "anatomy": lambda: anatomy(
            bundle, course.venvs, course.texts, course.port, min(3, course.runs)
        ),
        "growth": lambda: growth(
            course.models["shipped"],
            course.venvs,
            course.texts,
            course.port,
            course.seconds,
            course.runs,
        ),
        "runtimes": lambda: runtimes(course.models, course.venvs, course.venvs, course.runs),
    }
    for part in PARTS:
        if part not in parts:
            continue
        click.echo(f"{part} …")
        report[part] = _made(bundle, course) | {"found": steps[part]()}
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(report, indent=1) + "\n")
    if "anatomy" in report:
        picture(report["anatomy"]["found"], out.with_name(out.name + "-anatomy.svg"))
    out.with_name(out.name + ".md").write_text(page(report, out.name))
    click.echo(f"written: {json_file} and {out.with_name(out.name + '.md')}")


def _servers(peers: list[Peer], course: Course) -> dict[str, Any]:
    chosen = choose_variants(peers, course)
    peers = [peer for peer in peers if peer.name in chosen]
    raced = race(peers, chosen, course)
    return {
        peer.name: raced[peer.name]
        | chosen[peer.name]
        | {
            "precision": peer.precision,
            "versions": versions(peer, course.venvs),
            "installs": [" ".join(one) for one in peer.installs],
        }
        for peer in peers
    }


def _open(peers: list[Peer], course: Course, report: dict[str, Any]) -> dict[str, Any]:
    if "servers" not in report:
        raise InvalidInput("--part open: needs the capacities that --part servers measures first")
    found = report["servers"]["found"]
    capacity = max(one["median"]["64"]["rps"] for one in found.values())
    peers = [peer for peer in peers if peer.name in found]
    return {"capacity_rps": capacity, "by_server": race_open(peers, found, course, capacity)}


def _made(bundle: Bundle, course: Course) -> dict[str, Any]:
    """How and where a part was measured."""
    model = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        ": unknown",
    )
    root = Path(__file__).parents[2]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": "dimee " + " ".join(sys.argv[1:]),
        "commit": commit or "unknown",
        "bundle_id": bundle.bundle_id,
        "texts": len(course.texts),
        "runs": course.runs,
        "seconds": course.seconds,
        "machine": {
            "cpu": model.partition(":")[2].strip(),
            "cores": len(os.sched_getaffinity(0)),
            "load_before": round(os.getloadavg()[0], 2),
            "python": platform.python_version(),
        },
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
