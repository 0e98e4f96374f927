"""The grid search: its choice, its files, resuming, and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lab.cli.train import pools
from lab.cli.train import train as train_command
from lab.models.run import Run
from lab.train.early_stopping import Diverged
from lab.train.grid import BATCH_SIZES, EPOCHS, LEARNING_RATES, search
from lab.train.settings import TrainSettings
from lab.train.trainer import train
from shared.errors import InvalidInput
from tests.support.tiny_runs import without_times


@pytest.fixture(scope="session")
def settings(tiny_data: Path, tiny_encoder: Path) -> TrainSettings:
    return TrainSettings(
        "sst2", str(tiny_data), str(tiny_encoder), epochs=1, limit=150, bf16=False, optimizer="adam"
    )


Command = Callable[..., Result]


@pytest.fixture
def command(tiny_data: Path, tiny_encoder: Path) -> Command:
    def run(out: Path, *options: str) -> Result:
        fixed = [
            "--task",
            "sst2",
            "--data",
            str(tiny_data),
            "--encoder",
            str(tiny_encoder),
            "--no-bf16",
        ]
        return CliRunner().invoke(train_command, [*fixed, "--out", str(out), *options])

    return run


def read_grid(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "grid.json").read_text())
    return found


def change_times(out: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in out.glob("grid/*/model/*")}


def test_default_grid_is_the_papers() -> None:
    assert (BATCH_SIZES, EPOCHS) == ((8, 16, 32), 5)
    assert LEARNING_RATES == (1e-5, 2e-5, 3e-5, 4e-5, 5e-5)


def test_best_point_is_kept_and_no_point_is_repeated(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = [
        "--limit", "200", "--grid", "--grid-batch-sizes", "16,32",
        "--grid-learning-rates", "1e-5,3e-3", "--epochs", "2",
    ]  # fmt: skip
    done = command(out, *options)
    assert done.exit_code == 0, done.output
    assert "best of the grid: batch" in done.output
    found = read_grid(out)
    assert {(p["batch_size"], p["learning_rate"]) for p in found["points"]} == {
        (16, 1e-5), (16, 3e-3), (32, 1e-5), (32, 3e-3)
    }  # fmt: skip
    assert all(len(p["validation_accuracy_by_exit"]) == 3 for p in found["points"])
    best = max(p["validation_accuracy_by_exit"][-1] for p in found["points"])
    facts = Run(out).facts
    assert facts["validation_accuracy_by_exit"][-1] == best
    assert found["best"] == f"b{facts['batch_size']}-lr{facts['learning_rate']:g}"
    assert (facts["optimizer"], facts["epochs"]) == ("adam", 2)
    assert Run(out / "grid" / found["best"]).model_hash() == Run(out).model_hash()
    assert not [*out.glob("grid/*/checkpoint.pt")]
    before = change_times(out)
    assert command(out, *options).exit_code == 0
    assert change_times(out) == before
    assert read_grid(out) == found
    assert CliRunner().invoke(pools, [str(out), "--mobile-layers", "1", "--edge-layers", "2"],
                              catch_exceptions=False).exit_code == 0  # fmt: skip


def test_interrupted_search_trains_only_the_missing_points(
    settings: TrainSettings, tmp_path: Path
) -> None:
    first = search(settings, tmp_path, [32], [1e-4])
    before = change_times(tmp_path)
    (tmp_path / "model" / "dimee.json").unlink()  # as if interrupted while the winner was copied
    search(settings, tmp_path, [32], [1e-4, 3e-3])
    assert len(read_grid(tmp_path)["points"]) == 2
    assert {file: change_times(tmp_path)[file] for file in before} == before
    alone = train(replace(settings, batch_size=32, learning_rate=1e-4), tmp_path / "alone")
    assert without_times(alone) == without_times(first)


def test_among_equal_points_the_smaller_learning_rate_wins(
    settings: TrainSettings, tmp_path: Path
) -> None:
    """The steps are too small to change an answer, so every point is equal."""
    facts = search(settings, tmp_path, [32, 16], [3e-12, 2e-12, 1e-12])
    accuracy = {str(p["validation_accuracy_by_exit"]) for p in read_grid(tmp_path)["points"]}
    assert len(accuracy) == 1
    assert (facts["learning_rate"], facts["batch_size"]) == (1e-12, 16)


def test_diverged_point_cannot_win(settings: TrainSettings, tmp_path: Path) -> None:
    facts = search(settings, tmp_path, [32], [1e30, 1e-4])
    assert facts["learning_rate"] == 1e-4
    diverged, sound = read_grid(tmp_path)["points"]
    assert diverged["validation_accuracy_by_exit"] is None
    assert len(sound["validation_accuracy_by_exit"]) == 3
    with pytest.raises(Diverged, match="at every point; choose lower ones"):
        search(settings, tmp_path / "all", [32], [1e30])
    assert not (tmp_path / "all" / "model").exists()


def test_points_of_other_settings_are_refused(settings: TrainSettings, tmp_path: Path) -> None:
    search(settings, tmp_path, [32], [1e-4])
    for other in (replace(settings, loss="depth"), replace(settings, seed=7)):
        with pytest.raises(InvalidInput, match="belongs to a grid with other settings"):
            search(other, tmp_path, [32], [1e-4])


def test_run_and_grid_do_not_share_a_folder(settings: TrainSettings, tmp_path: Path) -> None:
    train(settings, tmp_path / "run")
    with pytest.raises(InvalidInput, match="holds a run without a grid"):
        search(settings, tmp_path / "run", [32], [1e-4])
    search(settings, tmp_path / "grid", [32], [1e-4])
    with pytest.raises(InvalidInput, match="holds a grid search"):
        train(settings, tmp_path / "grid")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--grid", "--batch-size", "8"], "--batch-size: the grid chooses it"),
        (["--grid", "--learning-rate", "1e-5"], "--learning-rate: the grid chooses it"),
        (["--grid", "--grid-batch-sizes", "0"], "grid_batch_sizes: each must be 1 or more"),
        (["--grid", "--grid-learning-rates", "nan"], "grid_learning_rates: each must be above 0"),
        (["--grid", "--grid-learning-rates", "0"], "grid_learning_rates: each must be above 0"),
        (["--grid-batch-sizes", "8"], "--grid-batch-sizes: add --grid"),
    ],
)
def test_wrong_options_are_refused(
    options: list[str], message: str, command: Command, tmp_path: Path
) -> None:
    done = command(tmp_path / "run", *options)
    assert isinstance(done.exception, InvalidInput)
    assert done.exception.message.startswith(message)
    assert not (tmp_path / "run").exists()


def test_invalid_list_of_numbers_is_refused(command: Command, tmp_path: Path) -> None:
    done = command(tmp_path, "--grid", "--grid-batch-sizes", "8,x")
    assert done.exit_code == 2
    assert "'8,x' is not a list of numbers; give one like 8,16,32" in done.output
