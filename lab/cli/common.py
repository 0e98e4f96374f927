"""Helpers that the lab's commands share."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from shared.extras import require
from shared.signals import EndedBySignal

REQUIRED = ("torch", "transformers", "onnx", "tqdm")
PATH = click.Path(path_type=Path)
results_option = click.option(
    "--out",
    type=PATH,
    default=Path("docs/results"),
    show_default=True,
    help="Folder of the results.",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]",
    help="Device of the model; auto is the first GPU if torch can use one, or else the CPU.",
)
data_option = click.option("--data", help="Folder or hub name of the run's data, if it moved.")


def require_lab() -> None:
    """Raise `MissingExtra` unless the packages of the extra ``lab`` are installed."""
    require(REQUIRED, "the lab", "lab")


def echo_export(card: str, notes: list[str]) -> None:
    """Print the card of a new bundle, and the notes on stderr."""
    click.echo(card)
    for note in notes:
        click.echo(f"note: {note}", err=True)


def format_accuracies(values: list[float]) -> str:
    """Format accuracies by exit in one line: ``87.01, 89.18``."""
    return ", ".join(f"{value:.2f}" for value in values)


@contextmanager
def says_how_to_go_on(out: Path) -> Iterator[None]:
    """Print the command that continues the run in ``out`` when a signal ends the block."""
    try:
        yield
    except (KeyboardInterrupt, EndedBySignal) as error:
        traceback.clear_frames(error.__traceback__)  # ends the display of the progress
        command = shlex.join(["dimee", *sys.argv[1:]])
        saved = any(out.rglob("checkpoint.pt"))
        aim = "go on from the last checkpoint" if saved else "start again (no checkpoint yet)"
        click.echo(f"stopped; to {aim}, run in {Path.cwd()}:\n  {command}", err=True)
        raise
