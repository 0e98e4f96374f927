"""Benchmark of the cloud on a GPU: ``python -m testbed.bench.gpu --data FILE --out OUT``.

It compares answers with onnxruntime's, texts a second with transformers', and requests a second
over HTTP with those of the same server without layers. ``--smoke`` runs all of it in small on
torch's CPU path; its figures mean nothing.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from mobile_client.cli.text_options import field_options
from shared.bundle.description import describe
from shared.bundle.loading import Bundle, load_bundle
from shared.domain import InputText
from shared.errors import DimeeError, InvalidInput
from shared.files import prepare_output
from shared.inference.devices import gpus
from shared.settings import default_bundle
from testbed.bench.benchmark_run import describe as figures_of
from testbed.bench.benchmark_run import make_client
from testbed.bench.latency_breakdown import tier_peer
from testbed.bench.measured_server import serve
from testbed.bench.peers import SERVERS, Peer, Variant
from testbed.load.generator import closed_loop
from testbed.load.http_client import run
from testbed.load.provenance import provenance
from testbed.load.templates import environment
from testbed.processes.children import run_watched
from testbed.processes.ports import free_ports

REPOSITORY = Path(__file__).parents[2]
FULL: dict[str, Any] = {
    "sizes": "12x768",
    "batches": (1, 8, 64, 512),
    "connections": (64, 512),
    "device": "cuda",
    "compile": True,
    "seconds": 0.3,
    "least_calls": 5,
    "warm_ups": 5,
    "bisections": 10,
    "http_s": 5.0,
}
SMOKE: dict[str, Any] = FULL | {
    "sizes": "2x64",
    "batches": (1, 3),
    "connections": (2, 4),
    "device": "cpu",
    "compile": False,
    "seconds": 0.0,
    "least_calls": 1,
    "warm_ups": 1,
    "bisections": 1,
    "http_s": 0.5,
}
SMOKE_TEXTS = 8
SETTINGS = {"DIMEE_MAX_QUEUE": "4096", "DIMEE_MAX_QUEUE_MS": "10000", "DIMEE_METRICS": "off"}


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Labelled texts.")
@field_options()
@click.option("--bundle", type=click.Path(path_type=Path), help="Folder of the model bundle.")
@click.option(
    "--models",
    type=click.Path(path_type=Path),
    default=Path("bench-gpu-models"),
    show_default=True,
    help="Folder for the models to compare with.",
)
@click.option(
    "--runs",
    default=3,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Number of alternating measurements of each case.",
)
@click.option(
    "--part",
    "parts",
    multiple=True,
    type=click.Choice(["layers", "http"]),
    help="Part of the benchmark, repeatable.  [default: both]",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="OUT.json and OUT.md.")
@click.option("--smoke", is_flag=True, help="Try everything in small, without a GPU.")
def main(
    bundle: Path | None, models: Path, runs: int, parts: tuple[str, ...], **options: Any
) -> None:
    """Measure the cloud on the first GPU."""
    loaded = load_bundle(bundle or default_bundle())
    sizes = SMOKE if options["smoke"] else FULL
    if not options["smoke"] and not (found := gpus())[0]:
        raise InvalidInput(f"gpu: {found[1]}; --smoke tries the benchmark without a GPU")
    texts = read_texts(loaded, options)[: SMOKE_TEXTS if options["smoke"] else None]
    json_file, page = (
        options["out"].with_name(options["out"].name + end) for end in (".json", ".md")
    )
    for file in (json_file, page):
        prepare_output(file, "out")
    report: dict[str, Any] = json.loads(json_file.read_text()) if json_file.is_file() else {}
    models = models.resolve() / f"{loaded.bundle_id}-{sizes['sizes']}"
    facts = provenance() | {
        "command": f"python -m testbed.bench.gpu {shlex.join(sys.argv[1:])}",
        "bundle_id": loaded.bundle_id,
        "runs": runs,
        "smoke": options["smoke"],
    }
    if not parts or "layers" in parts:
        report["layers"] = facts | {"found": measure_layers(loaded, texts, models, runs, sizes)}
    if not parts or "http" in parts:
        report["http"] = facts | {"found": measure_http(loaded, texts, runs, sizes)}
    json_file.write_text(json.dumps(report, indent=1) + "\n")
    template = environment("testbed.bench.templates").get_template("gpu.md.j2")
    page.write_text(template.render(report=report), encoding="utf-8")
    click.echo(f"written: {json_file} and {page}")


def read_texts(bundle: Bundle, options: dict[str, Any]) -> Sequence[InputText]:
    """Return the labelled texts of ``--data``."""
    from testbed.texts import read_labelled_texts

    return read_labelled_texts(options["data"], describe(bundle), options)


def measure_layers(
    bundle: Bundle, texts: Sequence[InputText], models: Path, runs: int, sizes: dict[str, Any]
) -> dict[str, Any]:
    """Return agreement with onnxruntime, and texts a second by model, batch and method."""
    manifest = bundle.manifest
    _run(
        [
            sys.executable,
            "-m",
            "lab.export.gpu_models",
            str(bundle.path),
            str(models),
            sizes["sizes"],
        ]
    )
    job = sizes | {
        "runs": runs,
        "texts": [(text.text, text.pair) for text in texts],
        "models": [
            {
                "name": f"{manifest.layers} x {manifest.hidden_size}",
                "bundle": str(bundle.path.resolve()),
                "transformers": str(models / "shipped-transformers"),
            },
            {
                "name": f"{sizes['sizes'].replace('x', ' x ')}, random weights",
                "bundle": str(models / "random"),
                "transformers": str(models / "random-transformers"),
            },
        ],
    }
    printed = _run([sys.executable, str(SERVERS / "gpu_times.py")], json.dumps(job))
    return dict(json.loads(printed.splitlines()[-1]))


def _run(command: list[str], text: str = "") -> str:
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    done = run_watched(command, text, env=os.environ | {"PYTHONPATH": paths})
    if done.returncode:
        raise DimeeError(f"gpu: {shlex.join(command[:3])} … failed; its output is above")
    return done.stdout


def measure_http(
    bundle: Bundle, texts: Sequence[InputText], runs: int, sizes: dict[str, Any]
) -> dict[str, Any]:
    """Return requests a second of the cloud, and of the same server without layers.

    Figures are medians of alternating runs.
    """
    on_gpu = sizes["device"] == "cuda"
    cuda = _script("torch_cloud.py") if not on_gpu else tier_peer("cloud")
    peers = {"cuda": cuda, "without layers": _script("no_layers.py")}
    variant = Variant("bench", SETTINGS | ({"DIMEE_DEVICE": "cuda"} if on_gpu else {}))
    rates: dict[str, dict[str, list[dict[str, Any]]]] = {
        str(count): {name: [] for name in peers} for count in sizes["connections"]
    }
    for _ in range(runs):
        for name, peer in peers.items():
            (port,) = free_ports(1)
            with serve(peer, variant, Path(), bundle.path, port, texts[0]):
                for count in sizes["connections"]:
                    client, body = make_client(peer, port, texts)
                    run(closed_loop(client, body, count, sizes["http_s"]))  # captures graphs
                    tally = run(closed_loop(client, body, count, sizes["http_s"]))
                    busy = round(tally.cpu_s / tally.seconds, 2)
                    rates[str(count)][name].append(figures_of(tally) | {"client_cores": busy})
    return {count: _summary(by_name) for count, by_name in rates.items()}


def _script(name: str) -> Peer:
    return replace(
        tier_peer("cloud"),
        command=lambda python, port, variant, model: [str(python), str(SERVERS / name)],
    )


def _summary(by_name: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    best = {
        name: sorted(runs, key=lambda one: one["rps"])[len(runs) // 2]
        for name, runs in by_name.items()
    }
    ratio = best["cuda"]["rps"] / max(best["without layers"]["rps"], 1e-9)
    return best | {"share_of_host": round(ratio, 3)}


if __name__ == "__main__":
    try:
        main()
    except DimeeError as error:
        sys.exit(error.message)
