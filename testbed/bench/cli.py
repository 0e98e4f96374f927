"""``dimee bench``: compare dimee with other inference servers of the same encoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mobile_client.cli.text_options import field_options
from shared.bundle.description import describe
from shared.bundle.loading import Bundle, load_bundle, tier_layers
from shared.errors import InvalidInput
from shared.settings import default_bundle
from testbed.bench.benchmark_run import (
    BenchmarkSettings,
    choose_variants,
    run_closed_loops,
    run_open_loops,
)
from testbed.bench.core_scaling import core_scaling
from testbed.bench.early_exit import early_exit
from testbed.bench.latency_breakdown import draw_breakdown, latency_breakdown
from testbed.bench.layer_speed import layers_only
from testbed.bench.metrics_cost import metrics_cost
from testbed.bench.page import bench_page
from testbed.bench.peers import PEERS, Peer, versions
from testbed.bench.runtimes import compare_runtimes
from testbed.bench.setup import make_models, make_venvs
from testbed.load.provenance import provenance
from testbed.processes.ports import free_ports
from testbed.texts import read_labelled_texts

PARTS = (
    "servers",
    "open-loop",
    "layers",
    "early-exit",
    "runtimes",
    "latency-breakdown",
    "core-scaling",
    "metrics",
)


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder with validation.jsonl, or a file of labelled texts.",
)
@field_options()
@click.option("--bundle", type=click.Path(path_type=Path), help="Folder of the model bundle.")
@click.option(
    "--venvs",
    type=click.Path(path_type=Path),
    default=Path("bench-venvs"),
    show_default=True,
    help="Folder for the virtual environments and models of the other servers.",
)
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(PARTS),
    help="Part of the benchmark, repeatable.  [default: all]",
)
@click.option("--only", multiple=True, help="Name of a server, repeatable.  [default: all]")
@click.option(
    "--runs",
    default=5,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Number of alternating runs.",
)
@click.option(
    "--seconds",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0.5, 120),
    help="Length of each measurement in seconds.",
)
@click.option("--seed", default=1, show_default=True, help="Seed of the open loop's arrivals.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("bench"),
    show_default=True,
    help="Write the figures to OUT.json and OUT.md; other parts in OUT.json are kept.",
)
def bench(bundle: Path | None, venvs: Path, out: Path, **options: Any) -> None:
    """Compare dimee with other inference servers that serve the same weights and texts.

    The servers run one after the other on this machine's cores, with the same client and one text a
    request.
    """
    loaded = load_bundle(bundle or default_bundle())
    texts = read_labelled_texts(options["data"], describe(loaded), options)
    peers = [peer for peer in PEERS if not options["only"] or peer.name in options["only"]]
    if not peers:
        raise InvalidInput(f"--only: choose from {', '.join(peer.name for peer in PEERS)}")
    if loaded.manifest.pairs:
        without = [peer.name for peer in peers if not peer.takes_pairs]
        peers = [peer for peer in peers if peer.takes_pairs]
        if not peers:
            raise InvalidInput(f"--only: {', '.join(without)} takes no pairs of texts")
        if without:
            click.echo(f"left out, because they take no pairs of texts: {', '.join(without)}")
    parts = options["parts"] or PARTS
    if {"servers", "open-loop"} & set(parts):
        make_venvs(peers, venvs, click.echo)
    models = make_models(loaded, venvs / "models")
    settings = BenchmarkSettings(
        texts,
        venvs.resolve(),
        {name: model.resolve() for name, model in models.items()},
        free_ports(1)[0],
        options["seconds"],
        options["runs"],
        options["seed"],
        click.echo,
    )
    _measure(loaded, peers, settings, parts, out)


def _measure(
    bundle: Bundle,
    peers: list[Peer],
    settings: BenchmarkSettings,
    parts: tuple[str, ...],
    out: Path,
) -> None:
    json_file = out.with_name(out.name + ".json")
    report: dict[str, Any] = json.loads(json_file.read_text()) if json_file.is_file() else {}
    layers = tier_layers(bundle, None, None)
    models, venvs, texts, runs = settings.models, settings.venvs, settings.texts, settings.runs
    shipped, port = models["shipped"], settings.port
    steps: dict[str, Callable[[], Any]] = {
        "servers": lambda: _measure_servers(peers, settings),
        "open-loop": lambda: _measure_open_loop(peers, settings, report),
        "layers": lambda: {
            name: layers_only(models[name], texts, runs) for name in ("shipped", "fp32")
        },
        "early-exit": lambda: early_exit(
            shipped,
            venvs,
            texts,
            port,
            {"all layers": layers.cloud.last, "layers of the edge": layers.edge.last},
            bundle.manifest.alpha,
            settings.seconds,
            runs,
        ),
        "runtimes": lambda: compare_runtimes(models, venvs, runs),
        "latency-breakdown": lambda: latency_breakdown(bundle, venvs, texts, port, min(3, runs)),
        "core-scaling": lambda: core_scaling(shipped, venvs, texts, port, settings.seconds, runs),
        "metrics": lambda: metrics_cost(shipped, venvs, texts, settings.seconds, runs),
    }
    for part in PARTS:
        if part not in parts:
            continue
        click.echo(f"{part} …")
        facts = provenance() | {
            "bundle_id": bundle.bundle_id,
            "texts": len(texts),
            "runs": runs,
            "seconds": settings.seconds,
        }
        report[part] = facts | {"found": steps[part]()}
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(report, indent=1) + "\n")
    if "latency-breakdown" in report:
        svg_file = out.with_name(out.name + "-latency-breakdown.svg")
        draw_breakdown(report["latency-breakdown"]["found"], svg_file)
    page_file = out.with_name(out.name + ".md")
    page_file.write_text(bench_page(report, out.name), encoding="utf-8")
    click.echo(f"written: {json_file} and {page_file}")


def _measure_servers(peers: list[Peer], settings: BenchmarkSettings) -> dict[str, Any]:
    chosen = choose_variants(peers, settings)
    peers = [peer for peer in peers if peer.name in chosen]
    loops = run_closed_loops(peers, chosen, settings)
    return {
        peer.name: loops[peer.name]
        | chosen[peer.name]
        | {
            "precision": peer.precision,
            "versions": versions(peer, settings.venvs),
            "installs": [" ".join(arguments) for arguments in peer.installs],
        }
        for peer in peers
    }


def _measure_open_loop(
    peers: list[Peer], settings: BenchmarkSettings, report: dict[str, Any]
) -> dict[str, Any]:
    if "servers" not in report:
        raise InvalidInput(
            "--part open-loop: it needs the capacities of --part servers; measure those first"
        )
    servers = report["servers"]["found"]
    capacity = max(server["median"]["64"]["rps"] for server in servers.values())
    peers = [peer for peer in peers if peer.name in servers]
    by_server = run_open_loops(peers, servers, settings, capacity)
    return {"capacity_rps": capacity, "by_server": by_server}
