"""``dimee temper``: a temperature for each exit."""

from __future__ import annotations

from pathlib import Path

import click

from lab.cli.train import _need_lab


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", help="Where the training's data is now, if it moved.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder of the new run."
)
def temper(run: Path, data: str | None, out: Path) -> None:
    """Fit a temperature for each exit on the validation part and fold it into the weights."""
    _need_lab()
    from lab.models.run import Run
    from lab.train.temperatures import temper as temper_run

    facts = temper_run(Run(run), out, data)
    shown = ", ".join(f"{t:.3f}" for t in facts["temperatures"])
    click.echo(f"temperatures of the exits 1 to {len(facts['temperatures'])}: {shown}")
