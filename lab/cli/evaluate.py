"""``dimee evaluate``: every method on the outputs of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lab.cli.common import PATH, device_option, require_lab
from shared.files import prepare_output

PRINTED_METHODS = (
    "bert", "random", "early-exit", "adaee", "i-splitee", "dimee-fixed", "dimee-adaptive",
    "mobile", "edge", "cloud", "random-same-mix", "true-difficulty",
)  # fmt: skip


@click.command()
@click.argument("run", type=PATH)
@click.option(
    "--data", help="Folder or hub name of the texts; checked against the hashes of the outputs."
)
@device_option
@click.option(
    "--on",
    type=click.Choice(["test", "validation-file", "glue"]),
    default="test",
    show_default=True,
    callback=lambda context, option, value: "glue" if value == "validation-file" else value,
    help="Reported examples: the run's own test part, or the data's validation file, which the "
    "training must not have used (glue is the same, for GLUE's).",
)
@click.option(
    "--mobile-layers", type=int, help="Layers on the mobile, m; default: a quarter of all."
)
@click.option("--edge-layers", type=int, help="Layers on the edge, n; default: half of all.")
@click.option(
    "--mu",
    type=click.FloatRange(0),
    default=0.1,
    show_default=True,
    help="Confidence that one answer of the cloud may cost (μ of eq. 2).",
)
@click.option(
    "--cloud-fee",
    type=click.FloatRange(0),
    help="γ in λ; default: the price book's or the preset's.",
)
@click.option(
    "--price-book",
    type=PATH,
    help="JSON file of prices in λ; prices that it lacks are the preset's.",
)
@click.option(
    "--shift",
    type=PATH,
    help="Folder of books, dvd and electronics reviews, to measure the adaptive rule under shift.",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="POLICY",
    help="Policy of your own to evaluate as well: MODULE:CLASS, or a name that an installed "
    "package registers. Repeatable.",
)
@click.option(
    "--predictions",
    type=PATH,
    help="Also write every policy's answer to every text to this .csv, .jsonl or .parquet file.",
)
@click.option(
    "--out",
    type=PATH,
    default=Path("docs/results/data"),
    show_default=True,
    help="Folder of the JSON that is written.",
)
def evaluate(
    run: Path,
    data: str | None,
    device: str,
    out: Path,
    mobile_layers: int | None,
    edge_layers: int | None,
    **options: Any,
) -> None:
    """Measure every method on one part of RUN and write the figures as one JSON.

    RUN is a training run, or a folder of exit outputs that `dimee outputs` wrote.
    """
    require_lab()
    from lab.evaluate.evaluate import evaluate as run_evaluation
    from lab.evaluate.evaluate import write_result
    from lab.evaluate.source import open_outputs
    from lab.models.device import choose_device

    source = open_outputs(run, data, choose_device(device))
    prepare_output(out / "result.json", "out")
    if source.kind == "outputs" and data is None:
        click.echo(
            "note: without --data the texts of the outputs are not checked, and features of pairs "
            "that the folder lacks are not used",
            err=True,
        )
    m = -(-source.layers // 4) if mobile_layers is None else mobile_layers
    n = max(m + 1, source.layers // 2) if edge_layers is None else edge_layers
    result = run_evaluation(source, mobile_layers=m, edge_layers=n, **options)
    for part in sorted(source.added):
        click.echo(f"note: computed {part}, which the outputs lack", err=True)
    for name in result["empty_pools"]:
        click.echo(
            f"warning: no validation example is {name} at α = {result['alpha']:.4f}, so no text is "
            "routed to its tier; change --mobile-layers, --edge-layers or --mu",
            err=True,
        )
    if reason := result.get("no_cascade_routing"):
        click.echo(f"note: cascade-routing is left out, because {reason}", err=True)
    click.echo(f"{result['reported']:,} examples, m = {m}, n = {n}, α = {result['alpha']:.4f}")
    click.echo(f"{'method':<18}{'accuracy':>9}{'against cloud':>15}{'cost':>9}  mobile/edge/cloud")
    for name in (*PRINTED_METHODS, *result.get("own_policies", ())):
        row = result["methods"][name]
        shares = "/".join(f"{100 * share:.0f}" for share in row["shares"].values())
        click.echo(
            f"{name:<18}{row['accuracy']:>9.2f}{row['against_cloud']:>+15.2f}"
            f"{row['cost_change']:>+8.1f}%  {shares} %"
        )
    if options["predictions"] is not None:
        click.echo(f"written: {options['predictions']}")
    click.echo(f"written: {write_result(result, out)}")
