"""``dimee evaluate``: every method on the outputs of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lab.cli.train import _need_lab

SHOWN = ("bert", "random", "early-exit", "adaee", "i-splitee", "dimee-fixed", "dimee-adaptive",
         "mobile", "edge", "cloud", "random-same-mix", "true-difficulty")  # fmt: skip


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", help="Where the texts are now; checked against the hashes of the outputs.")
@click.option(
    "--on",
    type=click.Choice(["test", "glue"]),
    default="test",
    show_default=True,
    help="What is reported: the run's own test part, or GLUE's validation file.",
)
@click.option("--mobile-layers", type=int, help="m; a quarter of the layers if left out.")
@click.option("--edge-layers", type=int, help="n; half of the layers if left out.")
@click.option(
    "--mu",
    type=click.FloatRange(0),
    default=0.1,
    show_default=True,
    help="Worth, in confidence, of one answer from the cloud (eq. 2).",
)
@click.option(
    "--cloud-fee",
    type=click.FloatRange(0),
    help="γ in λ; the price book's or the preset's if left out.",
)
@click.option(
    "--price-book",
    type=click.Path(path_type=Path),
    help="Prices in λ from a file; those that it leaves out are the preset's.",
)
@click.option(
    "--shift",
    type=click.Path(path_type=Path),
    help="Folder of books, dvd and electronics reviews: the adaptive rule under real shift.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("docs/results/data"),
    show_default=True,
    help="Folder of the JSON.",
)
def evaluate(
    run: Path,
    data: str | None,
    out: Path,
    mobile_layers: int | None,
    edge_layers: int | None,
    **options: Any,
) -> None:
    """Judge every method on one part of RUN and write the figures as one JSON.

    RUN is a training run, or a folder of exit outputs that dimee outputs wrote.
    """
    _need_lab()
    from lab.evaluate.evaluate import evaluate as judge
    from lab.evaluate.evaluate import write_result
    from lab.evaluate.source import open_source

    source = open_source(run, data)
    if source.source == "outputs" and data is None:
        click.echo(
            "note: without --data it is not checked which texts the outputs are of, and features "
            "of pairs that the folder lacks are not used",
            err=True,
        )
    m = -(-source.layers // 4) if mobile_layers is None else mobile_layers
    n = max(m + 1, source.layers // 2) if edge_layers is None else edge_layers
    result = judge(source, mobile_layers=m, edge_layers=n, **options)
    for part in sorted(source.added):
        click.echo(f"note: the outputs lack {part}: computed", err=True)
    for name in result["empty_pools"]:
        click.echo(
            f"warning: no validation example is {name} at α = {result['alpha']:.4f}, so nothing is "
            "routed to its tier; change --mobile-layers, --edge-layers or --mu",
            err=True,
        )
    click.echo(f"{result['reported']:,} examples, m = {m}, n = {n}, α = {result['alpha']:.4f}")
    click.echo(f"{'method':<18}{'accuracy':>9}{'against cloud':>15}{'cost':>9}  mobile/edge/cloud")
    for name in SHOWN:
        row = result["methods"][name]
        shares = "/".join(f"{100 * share:.0f}" for share in row["shares"].values())
        click.echo(
            f"{name:<18}{row['accuracy']:>9.2f}{row['against_cloud']:>+15.2f}"
            f"{row['cost_change']:>+8.1f}%  {shares} %"
        )
    click.echo(f"written: {write_result(result, out)}")
