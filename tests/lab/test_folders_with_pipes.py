"""A pipe in a folder of a run, of outputs, of an encoder or of data: one sentence, no wait."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.data.sources import open_table
from lab.evaluate.source import open_outputs
from lab.models.classifiers import read_classifier
from lab.models.encoders import load_encoder, load_tokenizer
from lab.train.grid import search
from lab.train.settings import TrainSettings
from lab.train.teacher import teacher_logits
from lab.train.trainer import train
from shared.errors import InvalidInput

SETTINGS = TrainSettings("sst2", "no-data", "no-encoder")


def _run_with_pipe(folder: Path, run: Path) -> Path:
    """Copy ``run`` to ``folder`` with a pipe instead of its weights."""
    shutil.copytree(run, folder, dirs_exist_ok=True)
    weights = folder / "model" / "weights.safetensors"
    weights.unlink()
    os.mkfifo(weights)
    return weights


def test_pipe_instead_of_the_weights_of_a_run(fixed_run: Path, tmp_path: Path) -> None:
    weights = _run_with_pipe(tmp_path, fixed_run)
    for read in (open_outputs, lambda folder: teacher_logits(folder, [], 2)):
        with pytest.raises(InvalidInput) as refused:
            read(tmp_path)
        assert f"{weights} cannot be read (it is a pipe" in refused.value.message


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "outputs": ("exit0.safetensors", open_outputs),
    "teacher": ("facts.json", lambda folder: teacher_logits(folder, [], 2)),
    "encoder": ("config.json", lambda folder: load_encoder(str(folder))),
    "tokenizer": ("tokenizer.json", lambda folder: load_tokenizer(str(folder))),
    "classifier": ("config.json", lambda folder: read_classifier(str(folder))),
    "grid": ("grid.part", lambda folder: search(SETTINGS, folder)),
}


@pytest.mark.parametrize("reader", READERS)
def test_pipe_in_a_folder(reader: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    os.mkfifo(tmp_path / name)
    if reader == "outputs":
        (tmp_path / "facts.json").write_text("{}")
    with pytest.raises(InvalidInput) as refused:
        read(tmp_path)
    assert f"{tmp_path / name} cannot be read (it is a pipe" in refused.value.message


def test_pipe_in_the_folder_of_a_training(settings: TrainSettings, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "checkpoint.pt")
    with pytest.raises(InvalidInput, match=r"^out: .*checkpoint\.pt cannot be read"):
        train(settings, tmp_path)


def test_data_file_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "train.csv").symlink_to(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match=r"^data: .*train.csv cannot be read \(it is a pipe"):
        open_table(str(tmp_path), "train")
