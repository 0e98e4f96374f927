"""Data of one's own: from a CSV of three classes and a TSV of pairs to answers and certificates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lab.certify.calibration_data import load_calibration_examples
from lab.cli.evaluate import evaluate
from lab.cli.outputs import outputs
from lab.cli.train import train
from lab.data.splits import split_examples
from lab.data.tasks import Task
from lab.evaluate.source import RunOutputs, open_outputs
from lab.export.bundle import export_run
from lab.export.refit import refit
from lab.models.run import Run
from lab.train.weight_averaging import average_runs
from mobile_client import MobileClient
from shared.bundle.loading import Bundle, load_bundle
from shared.errors import InvalidInput
from tests.support.mobile import World, answered
from tests.support.tiny_data import TOPICS, make_pair_rows, make_topic_rows, write_table

EXPORT = {"mobile_layers": 1, "edge_layers": 2, "mu": 0.1, "cloud_fee": None, "max_tokens": 64}


def invoke(command: Any, *arguments: object) -> str:
    done = CliRunner().invoke(command, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def exported(run: Path, folder: Path) -> Bundle:
    # the loss by rounding depends on the CPU
    export_run(Run(run), folder, None, max_loss=100.0, **EXPORT)
    return load_bundle(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("data") / "temas.csv", make_topic_rows(400, 5))


@pytest.fixture(scope="module")
def run(data: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own") / "run"
    arguments = ("--data", data, "--text-field", "text", "--label-field", "topic")
    training = ("--metric", "macro-f1", "--epochs", 1, "--no-bf16", "--encoder", tiny_encoder)
    printed = invoke(train, *arguments, *training, "--out", folder)
    assert "trained on 256 train, 64 validation, 80 test" in printed
    return folder


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return exported(run, tmp_path_factory.mktemp("own") / "bundle")


def test_run_and_bundle_know_their_task(run: Path, bundle: Bundle) -> None:
    task = Task("temas", "text", None, TOPICS, label_field="topic", metric="macro-f1")
    assert Run(run).task == task
    facts = json.loads((run / "model" / "dimee.json").read_text())
    assert (facts["labels"], facts["split"]) == ([*TOPICS], "grouped")
    manifest = bundle.manifest
    assert (manifest.task, manifest.labels, manifest.metric) == ("temas", TOPICS, "macro-f1")
    card = (bundle.path / "README.md").read_text(encoding="utf-8")
    assert all(label in card for label in TOPICS)
    for option in ("--task temas", "--text-field text", "--label-field topic", "--metric macro-f1"):
        assert option in card


def test_labels_come_back_from_every_tier_and_the_ledger(bundle: Bundle, tmp_path: Path) -> None:
    with MobileClient(bundle=bundle.path, state_dir=tmp_path / "local", policy="mobile") as mobile:
        answer = mobile.classify("a fine film and the day")
        assert answer.label in TOPICS
        assert tuple(answer.probabilities) == TOPICS
    for policy in ("mobile", "edge", "cloud"):
        world = World(
            tmp_path / policy, ("edge", "cloud"), settings={"policy": policy}, bundle=bundle.path
        )
        (outcome,) = world.run(lambda mobile: mobile.classify(["a fine film and the day"]))
        answer = answered(outcome)
        assert answer.tier.value == policy
        assert tuple(answer.probabilities) == TOPICS
        assert {entry.label for entry in world.entries()} == {answer.label}
        store = world.ledger()
        assert answer.label in {entry.label for entry in store.entries()}
        store.close()


def test_run_is_evaluated_with_its_metric(run: Path, data: Path, tmp_path: Path) -> None:
    invoke(outputs, run, "--out", tmp_path / "outputs")
    assert sorted(file.stem for file in (tmp_path / "outputs").glob("*.safetensors")) == [
        "exit0", "test", "validation",
    ]  # fmt: skip
    results = []
    for source, given in ((run, ()), (tmp_path / "outputs", ("--data", data))):
        invoke(evaluate, source, *given, "--out", tmp_path)
        results.append(json.loads((tmp_path / f"{_name(run)}.json").read_text(encoding="utf-8")))
    assert results[0]["metric"] == "macro-F1"
    assert results[0]["labels"] == [*TOPICS]
    assert results[0]["methods"] == results[1]["methods"]
    row = results[0]["methods"]["cloud"]
    assert row["metric"] != row["accuracy"]
    with pytest.raises(InvalidInput, match=r"temas\.csv has no validation file; give --on test"):
        open_outputs(run).reported("glue")


def _name(run: Path) -> str:
    return f"temas-{Path(Run(run).facts['encoder']).name}-test"


def test_calibration_takes_the_test_part_of_the_file(bundle: Bundle, data: Path, run: Path) -> None:
    found = load_calibration_examples(bundle, str(data))
    assert found.examples == Run(run).split().test
    assert "the test part of" in found.description
    with pytest.raises(InvalidInput, match="task temas is none of GLUE's; give its data with"):
        load_calibration_examples(bundle, None)


def test_bundle_is_refitted_and_runs_are_averaged(
    bundle: Bundle, data: Path, run: Path, tmp_path: Path
) -> None:
    refit(bundle.path, tmp_path / "new", str(data), cloud_fee=3.0)
    assert load_bundle(tmp_path / "new").manifest.labels == TOPICS
    average_runs([Run(run), Run(run)], [0.5, 0.5], tmp_path / "average", None)
    assert Run(tmp_path / "average").task == Run(run).task


def test_pairs_from_tsv_in_a_folder(tiny_encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "paraphrases"
    for name, count, seed in (("train", 200, 1), ("validation", 60, 2), ("test", 60, 3)):
        rows = [
            {
                "question 1": row["sentence1"],
                "question 2": row["sentence2"],
                "same": ("ні", "так")[int(str(row["label"]))],
            }
            for row in make_pair_rows(count, seed)
        ]
        write_table(folder / f"{name}.tsv", rows, "\t")
    fields = {"text_field": "question 1", "pair_field": "question 2", "label_field": "same"}
    (folder / "task.json").write_text(json.dumps(fields | {"metric": "f1"}))
    options = ("--data", folder, "--epochs", 1, "--no-bf16", "--encoder", tiny_encoder)
    printed = invoke(train, *options, "--out", tmp_path / "run")
    assert "trained on 200 train, 60 validation, 60 test" in printed
    source = RunOutputs(Run(tmp_path / "run"))
    assert source.task.labels == ("ні", "так")
    assert len(source.reported("test")) == 60
    bundle = exported(tmp_path / "run", tmp_path / "bundle")
    assert bundle.manifest.pairs
    found = load_calibration_examples(bundle, str(folder))
    assert len(found.examples) <= 60
    assert "the file test of" in found.description
    with MobileClient(bundle=bundle.path, state_dir=tmp_path / "s", policy="mobile") as mobile:
        assert mobile.classify("a fine film", "a lovely film").label in ("ні", "так")


def test_split_of_the_run_is_that_of_its_seed(run: Path, data: Path) -> None:
    split = Run(run).split()
    examples = [*split.train, *split.validation, *split.test]
    assert len(examples) == 400
    again = split_examples(sorted(examples, key=lambda row: row.text), Run(run).task, "grouped", 13)
    assert {row.text for row in again.test} == {row.text for row in split.test}
