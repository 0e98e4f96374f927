"""``dimee mix``: the weighted mean of two runs."""

from __future__ import annotations

from pathlib import Path

import click

from lab.cli import _need_lab

_run = click.Path(path_type=Path)


@click.command()
@click.argument("first", type=_run)
@click.argument("second", type=_run)
@click.option(
    "--share", type=click.FloatRange(0, 1), help="Of the first run; searched if left out."
)
@click.option("--data", help="Where the trainings' data is now, if it moved.")
@click.option("--out", type=_run, required=True, help="Folder of the mixed run.")
def mix(first: Path, second: Path, share: float | None, data: str | None, out: Path) -> None:
    """Average two runs' weights; the share is the best of 0, 0.1 … 1 on the validation part."""
    _need_lab()
    from lab.run import Run
    from lab.soup import mix as mix_runs
    from lab.soup import search

    one, other = Run(first), Run(second)
    if share is None:
        share = search(one, other, data, click.echo)
    facts = mix_runs(one, other, share, out, data)
    shown = ", ".join(f"{value:.2f}" for value in facts["validation_accuracy_by_exit"])
    click.echo(f"{share:g} of {first} and the rest of {second}: {shown} by exit on validation")
