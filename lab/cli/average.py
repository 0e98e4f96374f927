"""``dimee mix``: the weighted mean of runs."""

from __future__ import annotations

from pathlib import Path

import click

from lab.cli.train import _need_lab
from shared.errors import InvalidInput

_run = click.Path(path_type=Path)


@click.command()
@click.argument("runs", type=_run, nargs=-1, required=True)
@click.option(
    "--share", type=click.FloatRange(0, 1), help="Of the first of two; searched if left out."
)
@click.option("--data", help="Where the trainings' data is now, if it moved.")
@click.option("--out", type=_run, required=True, help="Folder of the mixed run.")
def mix(runs: tuple[Path, ...], share: float | None, data: str | None, out: Path) -> None:
    """Average runs' weights.

    Of two runs the share is the best of 0, 0.1 … 1 on the validation part; of more, each has the
    same.
    """
    _need_lab()
    from lab.models.run import Run
    from lab.train.weight_averaging import mix as mix_runs
    from lab.train.weight_averaging import search

    if len(runs) < 2:
        raise InvalidInput("runs: one alone cannot be mixed; give two or more")
    if len(runs) > 2 and share is not None:
        raise InvalidInput("--share: only two runs can be weighted; leave it out")
    loaded = [Run(run) for run in runs]
    if len(runs) > 2:
        shares = [1 / len(runs)] * len(runs)
    else:
        first = search(loaded[0], loaded[1], data, click.echo) if share is None else share
        shares = [first, 1 - first]
    facts = mix_runs(loaded, shares, out, data)
    shown = ", ".join(f"{value:.2f}" for value in facts["validation_accuracy_by_exit"])
    parts = " + ".join(f"{part:.3g} · {run}" for part, run in zip(shares, runs, strict=True))
    click.echo(f"{parts}: {shown} by exit on validation")
