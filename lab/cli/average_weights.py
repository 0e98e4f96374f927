"""``dimee average-weights``: the weighted mean of runs."""

from __future__ import annotations

from pathlib import Path

import click

from lab.cli.common import PATH, data_option, device_option, format_accuracies, require_lab
from shared.errors import InvalidInput


@click.command("average-weights")
@click.argument("runs", type=PATH, nargs=-1, required=True)
@click.option(
    "--share",
    type=click.FloatRange(0, 1),
    help="Weight of the first of two runs; searched on the validation part if left out.",
)
@data_option
@device_option
@click.option("--out", type=PATH, required=True, help="Folder of the new run.")
def average_weights(
    runs: tuple[Path, ...], share: float | None, data: str | None, device: str, out: Path
) -> None:
    """Average the weights of RUNS.

    For two runs the share is the best of 0, 0.1 … 1 on the validation part; more than two have
    equal shares.
    """
    require_lab()
    from lab.models.device import choose_device
    from lab.models.run import Run
    from lab.train.weight_averaging import average_runs, search_share

    if len(runs) < 2:
        raise InvalidInput("runs: a single run cannot be averaged; give two or more")
    if len(runs) > 2 and share is not None:
        raise InvalidInput("--share: only two runs can be weighted; leave it out")
    chosen = choose_device(device)
    loaded = [Run(run, chosen) for run in runs]
    if len(runs) > 2:
        shares = [1 / len(runs)] * len(runs)
    else:
        first = search_share(loaded[0], loaded[1], data, click.echo) if share is None else share
        shares = [first, 1 - first]
    facts = average_runs(loaded, shares, out, data)
    terms = " + ".join(f"{part:.3g} · {run}" for part, run in zip(shares, runs, strict=True))
    accuracies = format_accuracies(facts["validation_accuracy_by_exit"])
    click.echo(f"{terms}: {accuracies} by exit on validation")
