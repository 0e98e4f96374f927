"""Mixing two runs: the weighted mean of their weights, its share chosen on validation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from lab.cli.average import mix as command

from lab.models.run import Run
from lab.train.trainer import TrainSettings, train
from lab.train.weight_averaging import mix
from shared.errors import InvalidInput


@pytest.fixture(scope="module")
def runs(
    tiny_data: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    base = TrainSettings("sst2", str(tiny_data), str(tiny_encoder), epochs=1, bf16=False)
    variants = {
        "one": base,
        "two": replace(base, learning_rate=3e-3),
        "other-seed": replace(base, seed=99),
    }
    folder = tmp_path_factory.mktemp("runs")
    for name, settings in variants.items():
        train(settings, folder / name)
    return {name: folder / name for name in variants}


def test_the_weights_are_the_weighted_mean(runs: dict[str, Path], tmp_path: Path) -> None:
    one, two = Run(runs["one"]), Run(runs["two"])
    facts = mix([one, two], [0.25, 0.75], tmp_path, None)
    made = Run(tmp_path).model.state_dict()
    for name, value in one.model.state_dict().items():
        expected = 0.25 * value + 0.75 * two.model.state_dict()[name]
        torch.testing.assert_close(made[name], expected)
    assert facts["mixed"]["shares"] == [0.25, 0.75]


def test_the_share_is_the_best_on_validation(runs: dict[str, Path], tmp_path: Path) -> None:
    done = CliRunner().invoke(
        command,
        [str(runs["one"]), str(runs["two"]), "--out", str(tmp_path)],
        catch_exceptions=False,
    )
    tried = [float(line.split(": ")[1].split()[0]) for line in done.output.splitlines()[:11]]
    assert Run(tmp_path).facts["validation_accuracy_by_exit"][-1] == max(tried)


def test_runs_of_other_splits_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="seed differs"):
        mix([Run(runs["one"]), Run(runs["other-seed"])], [0.5, 0.5], tmp_path, None)


def test_of_more_than_two_each_has_the_same_share(runs: dict[str, Path], tmp_path: Path) -> None:
    three = [str(runs[name]) for name in ("one", "two", "one")]
    CliRunner().invoke(command, [*three, "--out", str(tmp_path)], catch_exceptions=False)
    one, two = (Run(runs[name]).model.state_dict() for name in ("one", "two"))
    for name, value in Run(tmp_path).model.state_dict().items():
        torch.testing.assert_close(value, 2 / 3 * one[name] + 1 / 3 * two[name])


@pytest.mark.parametrize(
    ("count", "options", "says"),
    [(1, [], "one alone cannot be mixed"), (3, ["--share", "0.5"], "only two runs")],
)
def test_wrong_numbers_of_runs_are_refused(
    count: int, options: list[str], says: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    arguments = [*[str(runs["one"])] * count, *options, "--out", str(tmp_path)]
    with pytest.raises(InvalidInput, match=says):
        CliRunner().invoke(command, arguments, catch_exceptions=False)
