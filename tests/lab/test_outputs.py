"""Folders of exit outputs: writing, reading, errors, and the figures of the shared ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from lab.cli.evaluate import evaluate
from lab.cli.outputs import outputs
from lab.data.splits import load_split
from lab.data.tasks import get_task
from lab.evaluate.evaluate import evaluate as run_evaluation
from lab.evaluate.outputs import FACTS, LOGITS, SavedOutputs
from lab.evaluate.pools import make_pools
from lab.evaluate.simulate import simulate
from lab.evaluate.source import open_outputs
from lab.train.teacher import teacher_logits
from shared.errors import InvalidInput
from shared.policies import make_policy
from shared.pricing.cost_model import CostModel
from tests.support.paths import REPOSITORY
from tests.support.tiny_data import make_rows, write_rows


@pytest.fixture(scope="module")
def written(fixed_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs") / "tiny"
    done = CliRunner().invoke(
        outputs,
        [str(fixed_run), "--train-logits", "--device", "cpu", "--out", str(folder)],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    assert f"written: {folder}" in done.output
    return folder


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "copied")


def test_outputs_give_the_figures_of_their_run(
    fixed_run: Path, written: Path, tiny_data: Path
) -> None:
    """All figures that do not depend on the embeddings, which the folder has in fp16."""
    first = run_evaluation(open_outputs(fixed_run), "test", 1, 2, 0.1, None)
    second = run_evaluation(open_outputs(written, str(tiny_data)), "test", 1, 2, 0.1, None)
    for name in ("exits", "alpha", "pools", "layers", "hidden_size", "reported_hash", "model_hash"):
        assert first[name] == second[name], name
    for name in ("bert", "early-exit", "mobile", "edge", "cloud", "adaee", "i-splitee"):
        assert first["methods"][name] == second["methods"][name], name
    assert (first["run"]["source"], second["run"]["source"]) == ("run", "outputs")
    assert second["run"]["folder"] == "tiny"


def test_folder_has_no_weights_and_no_texts(written: Path, tiny_data: Path) -> None:
    names = {file.name for file in written.iterdir()}
    assert names == {FACTS, LOGITS, "exit0.safetensors", "glue.safetensors", "test.safetensors",
                     "validation.safetensors"}  # fmt: skip
    facts = (written / FACTS).read_text()
    text = json.loads((tiny_data / "train.jsonl").read_text().splitlines()[0])["sentence"]
    for file in written.iterdir():
        assert text.encode() not in file.read_bytes()
    assert str(tiny_data) not in facts


def test_other_data_are_refused(written: Path, tmp_path: Path) -> None:
    for name, seed in (("train", 90), ("validation", 91)):
        write_rows(tmp_path / f"{name}.jsonl", make_rows(400, seed))
    with pytest.raises(InvalidInput, match=r"was made from data other than .*give the same data"):
        open_outputs(written, str(tmp_path))


def test_another_validation_file_is_refused(written: Path, tiny_data: Path, tmp_path: Path) -> None:
    shutil.copy(tiny_data / "train.jsonl", tmp_path)
    write_rows(tmp_path / "validation.jsonl", make_rows(400, 91))
    source = open_outputs(written, str(tmp_path))
    source.reported("test")
    with pytest.raises(InvalidInput, match="was made from data other than"):
        source.reported("glue")


def test_without_data_a_note_says_that_texts_are_not_checked(written: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        evaluate, [str(written), "--out", str(tmp_path)], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert "without --data the texts of the outputs are not checked" in done.output


def test_other_texts_need_the_model(written: Path, tmp_path: Path) -> None:
    for name in ("books", "dvd", "electronics"):
        write_rows(tmp_path / f"{name}.jsonl", make_rows(20, 5))
    with pytest.raises(InvalidInput, match="holds no model to answer books with; give the run"):
        run_evaluation(open_outputs(written), "test", 1, 2, 0.1, None, tmp_path)


def _remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _change(name: str, **arrays: Any) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        known = load_file(folder / name)
        model = json.loads((folder / FACTS).read_text())["weights_sha256"]
        meta = {"data_hash": "d", "model_hash": model}
        save_file(known | {key: make(known) for key, make in arrays.items()}, folder / name, meta)

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove(FACTS), "holds neither a trained model nor exit outputs"),
        (_remove("test.safetensors"), "has no test.safetensors; give --on glue"),
        (_remove("exit0.safetensors"), "exit0.safetensors cannot be read"),
        (lambda folder: (folder / FACTS).write_text("{"), "facts.json cannot be read"),
        (lambda folder: (folder / FACTS).write_text("{}"), "facts.json lacks 'task'"),
        (
            lambda folder: (folder / "test.safetensors").write_bytes(b"no tensors"),
            "test.safetensors cannot be read",
        ),
        (
            _change("test.safetensors", tokens=lambda known: known["tokens"][:-1].copy()),
            "has tokens of shape",
        ),
        (
            _change("test.safetensors", labels=lambda known: known["labels"] + 5),
            "has labels that are not this task",
        ),
        (
            _change("test.safetensors", probabilities=lambda known: known["probabilities"] * 2),
            "holds values that are not probabilities",
        ),
    ],
)
def test_damaged_folder_is_refused(
    damage: Callable[[Path], object], message: str, copied: Path
) -> None:
    def read_all() -> None:
        source = open_outputs(copied)
        source.reported("test")
        source.embedding_classifier()

    damage(copied)
    with pytest.raises(InvalidInput, match=message):
        read_all()


def test_folder_with_other_files_is_not_overwritten(fixed_run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = CliRunner().invoke(outputs, [str(fixed_run), "--out", str(tmp_path)])
    assert isinstance(done.exception, InvalidInput)
    assert "holds other files" in done.exception.message


def test_teacher_from_outputs_equals_that_from_the_run(
    fixed_run: Path, written: Path, tiny_data: Path
) -> None:
    """The folder has logits in fp16: p · |ln p| · 2⁻¹¹ for each class, at most 2e-4 each."""
    split = load_split(str(tiny_data), get_task("sst2"), "paper", 13)
    of_folder, of_run = (teacher_logits(path, split.train, 2) for path in (written, fixed_run))
    shares = [np.exp(x - x.max(1, keepdims=True)) for x in (of_folder, of_run)]
    first, second = (x / x.sum(1, keepdims=True) for x in shares)
    np.testing.assert_allclose(first, second, atol=2e-3)


def test_teacher_of_other_texts_or_classes_is_refused(written: Path, tiny_data: Path) -> None:
    split = load_split(str(tiny_data), get_task("sst2"), "paper", 13)
    with pytest.raises(InvalidInput, match="was made for other training texts"):
        teacher_logits(written, split.train[::-1], 2)
    with pytest.raises(InvalidInput, match="has 2 classes, but the data have 3"):
        teacher_logits(written, split.train, 3)


def test_writing_removes_the_files_of_an_earlier_run(
    fixed_run: Path, written: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(written, tmp_path / "again")
    done = CliRunner().invoke(
        outputs, [str(fixed_run), "--out", str(folder)], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert not (folder / LOGITS).exists()


def test_samples_of_another_model_are_refused(copied: Path) -> None:
    facts = json.loads((copied / FACTS).read_text())
    (copied / FACTS).write_text(json.dumps(facts | {"weights_sha256": "0" * 64}))
    with pytest.raises(InvalidInput, match="belongs to another model than"):
        open_outputs(copied).reported("test")


SHARED = REPOSITORY.parent / "shared"
EXPECTED = {
    "sst2": (-0.11, -61.2),
    "cola": (-1.52, -24.7),
    "mrpc": (-1.47, -30.5),
    "qnli": (-0.56, -24.8),
    "qqp": (0.11, -33.9),
    "mnli": (-2.84, -28.2),
}
"""dimee-fixed on GLUE's validation file: change in accuracy (points) and in cost (%)."""


@pytest.mark.parametrize("task", EXPECTED)
def test_shared_outputs_give_the_published_figures(task: str) -> None:
    """Up to one text at equal distance from two centroids, which a CPU may round to the other."""
    folder = SHARED / "outputs" / f"{task}-mpnet"
    if not folder.is_dir():
        pytest.skip(f"no exit outputs at {folder}")
    source = SavedOutputs(folder, str(SHARED / "glue" / task))
    pools = make_pools(source.validation(), CostModel.paper(source.layers), 3, 6, 0.1)
    test = source.reported("glue")
    trace = simulate(make_policy("dimee-fixed", pools.facts), test, pools.facts, 6)
    cloud = float((test.answers_NE[:, -1] == test.labels_N).mean())
    drop = 100 * (float((trace.answer_N == test.labels_N).mean()) - cloud)
    saving = 100 * (float(trace.cost_N.mean()) / 18 - 1)
    one_text = 100 / len(test)
    expected_drop, expected_saving = EXPECTED[task]
    assert drop == pytest.approx(expected_drop, abs=one_text + 0.005)
    assert saving == pytest.approx(expected_saving, abs=one_text + 0.05)
