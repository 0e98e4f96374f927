"""``dimee outputs``: the exit outputs of a run as a folder without its weights."""

from __future__ import annotations

from pathlib import Path

import click

from lab.cli.common import PATH, data_option, device_option, format_accuracies, require_lab


@click.command()
@click.argument("run", type=PATH)
@data_option
@device_option
@click.option(
    "--train-logits",
    is_flag=True,
    help="Add the last exit's logits of the training part, for dimee train --teacher.",
)
@click.option("--out", type=PATH, required=True, help="Folder of the outputs.")
def outputs(run: Path, data: str | None, device: str, train_logits: bool, out: Path) -> None:
    """Write the exit outputs of RUN to a folder, for dimee evaluate without the model.

    The folder holds every exit's probabilities, mean word embeddings, lengths and labels of the
    validation part, the test part and the data's validation file, but no weights and no texts. With
    it others can repeat the study.
    """
    require_lab()
    from lab.evaluate.outputs import write_outputs
    from lab.evaluate.source import RunOutputs
    from lab.models.device import choose_device
    from lab.models.run import Run

    source = RunOutputs(Run(run, choose_device(device)), data)
    facts = write_outputs(source, out, data, train_logits)
    for part in ("validation", "test", "glue"):
        if accuracies := facts.get(f"{part}_accuracy_by_exit"):
            click.echo(f"{part:<10} {format_accuracies(accuracies)} by exit")
    click.echo(f"written: {out}")
