"""``dimee average-weights``: the weighted mean of runs, with a share chosen on validation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from lab.cli.average_weights import average_weights
from lab.models.run import Run
from lab.train.weight_averaging import average_runs
from shared.errors import InvalidInput


def test_weights_are_the_weighted_mean(
    fixed_run: Path, other_fixed_run: Path, tmp_path: Path
) -> None:
    one, two = Run(fixed_run), Run(other_fixed_run)
    facts = average_runs([one, two], [0.25, 0.75], tmp_path, None)
    averaged = Run(tmp_path).model.state_dict()
    for name, value in one.model.state_dict().items():
        expected = 0.25 * value + 0.75 * two.model.state_dict()[name]
        torch.testing.assert_close(averaged[name], expected)
    assert facts["mixed"]["shares"] == [0.25, 0.75]


def test_share_is_the_best_on_validation(
    fixed_run: Path, other_fixed_run: Path, tmp_path: Path
) -> None:
    done = CliRunner().invoke(
        average_weights,
        [str(fixed_run), str(other_fixed_run), "--out", str(tmp_path)],
        catch_exceptions=False,
    )
    tried = [float(line.split(": ")[1].split()[0]) for line in done.stdout.splitlines()[:11]]
    assert Run(tmp_path).facts["validation_accuracy_by_exit"][-1] == max(tried)


def test_runs_of_other_splits_are_refused(fixed_run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(fixed_run, tmp_path / "other")
    file = other / "model" / "dimee.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seed": 99}))
    with pytest.raises(InvalidInput, match="seed differs"):
        average_runs([Run(fixed_run), Run(other)], [0.5, 0.5], tmp_path / "out", None)


def test_more_than_two_runs_have_equal_shares(
    fixed_run: Path, other_fixed_run: Path, tmp_path: Path
) -> None:
    three = [str(fixed_run), str(other_fixed_run), str(fixed_run)]
    CliRunner().invoke(average_weights, [*three, "--out", str(tmp_path)], catch_exceptions=False)
    one, two = (Run(run).model.state_dict() for run in (fixed_run, other_fixed_run))
    for name, value in Run(tmp_path).model.state_dict().items():
        torch.testing.assert_close(value, 2 / 3 * one[name] + 1 / 3 * two[name])


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [(1, [], "a single run cannot be averaged"), (3, ["--share", "0.5"], "only two runs")],
)
def test_wrong_numbers_of_runs_are_refused(
    count: int, options: list[str], message: str, fixed_run: Path, tmp_path: Path
) -> None:
    arguments = [*[str(fixed_run)] * count, *options, "--out", str(tmp_path)]
    with pytest.raises(InvalidInput, match=message):
        CliRunner().invoke(average_weights, arguments, catch_exceptions=False)
