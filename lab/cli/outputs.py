"""``dimee outputs``: the exit outputs of a run as a folder without its weights."""

from __future__ import annotations

from pathlib import Path

import click

from lab.cli.train import _need_lab


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", help="Where the training's data is now, if it moved.")
@click.option(
    "--train-logits",
    is_flag=True,
    help="Also the last exit's logits of the training part, for dimee train --teacher.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the outputs."
)
def outputs(run: Path, data: str | None, train_logits: bool, out: Path) -> None:
    """Write what dimee evaluate needs of RUN to a folder, without its weights and texts.

    The folder holds every exit's probabilities, mean word embeddings, lengths and labels of the
    validation part, the test part and GLUE's validation file, so that others can repeat the study.
    """
    _need_lab()
    from lab.evaluate.outputs import write_outputs
    from lab.evaluate.source import RunSource
    from lab.models.run import Run

    loaded = Run(run)
    facts = write_outputs(RunSource(loaded, data), out, data, train_logits)
    for part in ("validation", "test", "glue"):
        shown = facts.get(f"{part}_accuracy_by_exit")
        if shown:
            click.echo(f"{part:<10} {', '.join(f'{value:.2f}' for value in shown)} by exit")
    click.echo(f"written: {out}")
