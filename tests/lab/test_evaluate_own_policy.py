"""``dimee evaluate`` with policies that are not built in, and its file of predictions."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lab.cli.evaluate import evaluate
from lab.evaluate.methods import (
    BASELINE_ROWS,
    PAPER_METHODS,
    SEEDS,
    TIER_ROWS,
    EvaluationData,
)
from lab.evaluate.pools import make_pools
from lab.evaluate.predictions import COLUMNS, SUFFIXES, write_predictions
from shared.errors import DimeeError
from tests.support.example_policy import EXAMPLES, NAME, PATH
from tests.support.toy_samples import COSTS, toy

POLICIES = """
from shared.policies import RoutingDecision, StatelessPolicy, Tier


class Chance(StatelessPolicy):
    name = "chance"

    def __init__(self, seed):
        self.turn = seed

    def route(self, features):
        self.turn += 1
        return RoutingDecision(list(Tier)[self.turn % 3], self.name)


class Learner(StatelessPolicy):
    name = "learner"
    learns = True

    def __init__(self, facts):
        self.answers, self.layers = 0, facts.cost_model.layers

    def route(self, features):
        return RoutingDecision(Tier.CLOUD if self.answers % 2 else Tier.EDGE, self.name)

    def learn(self, decision, outcome):
        assert 0 <= outcome.margin <= 1 and outcome.label in (0, 1)
        self.answers += 1


class Repeats(Chance):
    name = "length-and-margin"


class Baseline(Chance):
    name = "length-only"


class Fails(Learner):
    name = "fails"

    def route(self, features):
        return "cloud"
"""


@pytest.fixture(autouse=True)
def _importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evaluated_policies.py").write_text(POLICIES, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path, str(EXAMPLES), str(tmp_path)])
    sys.modules.pop("evaluated_policies", None)


def run(fixed_run: Path, tmp_path: Path, *options: str) -> Result:
    return CliRunner().invoke(evaluate, [str(fixed_run), "--out", str(tmp_path), *options])


def result_of(done: Result) -> dict[str, Any]:
    assert done.exception is None, done.exception
    content: dict[str, Any] = json.loads(
        Path(done.output.split("written: ")[-1].strip()).read_text()
    )
    return content


def test_policies_have_rows_in_every_table(fixed_run: Path, tmp_path: Path) -> None:
    paths = {
        NAME: PATH,
        "chance": "evaluated_policies:Chance",
        "learner": "evaluated_policies:Learner",
    }
    options = [text for path in paths.values() for text in ("--policy", path)]
    done = run(fixed_run, tmp_path, *options)
    result = result_of(done)
    assert result["own_policies"] == paths
    assert set(result["methods"]) == {*PAPER_METHODS, *TIER_ROWS, *BASELINE_ROWS, *paths}
    for name in paths:
        row = result["methods"][name]
        assert f"{name:<18}{row['accuracy']:>9.2f}" in done.output
        for table in (result["by_cloud_fee"]["1.0"], *result["by_alpha"].values()):
            assert name in table["methods"]
    runs = {name: result["methods"][name]["runs"] for name in paths}
    assert runs == {NAME: 1, "chance": SEEDS, "learner": SEEDS}, "seeds, and orders of the texts"
    assert result["methods"]["learner"]["shares"] == {"mobile": 0, "edge": 0.5, "cloud": 0.5}
    without = result_of(run(fixed_run, tmp_path))
    assert "own_policies" not in without
    for name in without["methods"]:
        assert result["methods"][name] == without["methods"][name]
    names = sorted(file.stem for file in tmp_path.glob("*-test*.json"))
    assert len(names) == 2, "the result with own policies does not replace the other"
    assert names[1] == f"{names[0]}-{NAME}-chance-learner"


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["cloud"], "--policy: cloud is built in and evaluated anyway"),
        ([PATH, "evaluated_policies:Repeats"], "another row has the name 'length-and-margin'"),
        (["evaluated_policies:Baseline"], "another row has the name 'length-only'"),
        (["evaluated_policies:Missing"], "has no class 'Missing'"),
        (["best"], "'best' is not known; choose one of"),
        (["evaluated_policies:Fails"], "'fails' failed in its method route; the log says why"),
    ],
)
def test_wrong_policies_end_the_command_with_one_sentence(
    paths: list[str], says: str, fixed_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = run(fixed_run, tmp_path, *(text for path in paths for text in ("--policy", path)))
    assert isinstance(done.exception, DimeeError)
    assert says in done.exception.message
    assert not list(tmp_path.glob("*.json"))
    if "log says why" in says:
        assert "returned 'cloud'; return a RoutingDecision" in caplog.text


@pytest.mark.parametrize(("option", "name"), [("predictions", "file/p.csv"), ("out", "file")])
def test_output_that_cannot_be_written_is_refused_before_the_work(
    option: str, name: str, fixed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("lab.evaluate.source.RunOutputs.validation", None)  # the work
    done = run(fixed_run, tmp_path, f"--{option}", str(tmp_path / name))
    assert isinstance(done.exception, DimeeError), done.exception
    assert done.exception.message.startswith(f"{option}: {tmp_path / 'file'}")
    assert "cannot be written" in done.exception.message


def read_predictions(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a predictions file, with the types of the JSON format."""
    if file.suffix == ".jsonl":
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    if file.suffix == ".parquet":
        from pyarrow import parquet

        rows: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
        return rows
    with file.open(encoding="utf-8", newline="") as stream:
        kinds = {"right": lambda text: text == "True", "confidence": float, "cost_lambda": float}
        kinds |= dict.fromkeys(("row", "run", "exit_layer", "attempts"), int)
        return [
            {name: kinds.get(name, str)(value) for name, value in row.items()}
            for row in csv.DictReader(stream)
        ]


def test_predictions_have_a_row_for_each_text_policy_and_run(
    fixed_run: Path, tmp_path: Path
) -> None:
    file = tmp_path / "out" / "predictions.csv"
    done = run(fixed_run, tmp_path, "--policy", PATH, "--predictions", str(file))
    result = result_of(done)
    assert f"written: {file}" in done.output
    rows = read_predictions(file)
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == sum(row["runs"] for row in result["methods"].values()) * result["reported"]
    for name, row in result["methods"].items():
        own = [one for one in rows if one["policy"] == name]
        assert {one["run"] for one in own} == set(range(row["runs"]))
        assert sorted({one["row"] for one in own}) == list(range(result["reported"]))
        mean = sum(one["cost_lambda"] for one in own) / len(own)
        assert mean == pytest.approx(row["cost_lambda"], abs=1e-3)
        share = 100 * sum(one["right"] for one in own) / len(own)
        assert share == pytest.approx(row["accuracy"], abs=1e-3)
    assert {one["label"] for one in rows} == set(result["labels"])
    assert {one["attempts"] for one in rows if one["policy"] == NAME} >= {1, 2}


def test_formats_of_predictions_hold_the_same_rows(tmp_path: Path) -> None:
    validation = toy(300, 1)
    pools = make_pools(validation, COSTS, 2, 3, 0.1, alpha=0.9)
    data = EvaluationData("sst2", validation, toy(40, 2), pools, {NAME: PATH})
    files = [tmp_path / f"predictions{suffix}" for suffix in SUFFIXES]
    for file in files:
        write_predictions(file, data, ["edge", "random", NAME], ["schön", "no, not"])
    csv_rows, jsonl_rows, parquet_rows = map(read_predictions, files)
    assert csv_rows == jsonl_rows == parquet_rows
    assert len(csv_rows) == 40 * (1 + SEEDS + 1)
    assert {row["label"] for row in csv_rows} == {"schön", "no, not"}
    assert sorted(file.name for file in tmp_path.iterdir() if file.suffix == ".part") == []


def test_other_suffix_of_predictions_is_refused_before_the_work(
    fixed_run: Path, tmp_path: Path
) -> None:
    done = run(fixed_run, tmp_path, "--predictions", "rows.xlsx")
    assert isinstance(done.exception, DimeeError)
    assert done.exception.message.startswith("--predictions: rows.xlsx does not end in .csv")
    assert "evaluate:" not in done.output
