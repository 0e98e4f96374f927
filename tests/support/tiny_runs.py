"""Runs of a tiny encoder: trained for one epoch, or with fixed weights and no training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lab.train.trainer as training
from lab.data.examples import data_hash
from lab.data.splits import load_split
from lab.data.tasks import get_task
from lab.models.embedding_tables import quantised_rows
from lab.models.encoders import load_tokenizer
from lab.models.model import MultiExitClassifier, new_model, save_model
from lab.models.run import TIME_FACTS
from lab.train.checkpoint import TrainingState
from lab.train.settings import TrainSettings
from lab.train.training_data import save_tokenizer


def fix_weights(model: MultiExitClassifier, seed: int) -> MultiExitClassifier:
    """Replace every weight matrix by numbers of numpy's generator, which are equal on every CPU.

    The word table has values that a bundle's 8 bits represent exactly.
    """
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                values = rng.normal(0, 0.3, tuple(parameter.shape)).astype(np.float32)
                parameter.copy_(torch.from_numpy(values))
        words = model.encoder.embeddings.word_embeddings.weight
        word_VH, scale_V = quantised_rows(words.numpy())
        words.copy_(torch.from_numpy(word_VH * scale_V[:, None]))
    return model


class Stopped(Exception):
    """The training was stopped after a checkpoint."""


def train_until(settings: TrainSettings, out: Path, step: int) -> None:
    """Train up to the checkpoint at ``step`` and stop there."""
    save = training.save_checkpoint

    def save_then_stop(file: Path, state: TrainingState, *rest: Any) -> None:
        save(file, state, *rest)
        if state.step == step:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "save_checkpoint", save_then_stop)
        with pytest.raises(Stopped):
            training.train(settings, out, checkpoint_steps=step)


def without_times(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a run that are equal for equal trainings."""
    return {name: value for name, value in facts.items() if name not in TIME_FACTS}


def write_fixed_run(
    folder: Path,
    data: Path,
    encoder: Path,
    task: str = "sst2",
    split: str = "paper",
    seed: int = 1,
    fix: Callable[[MultiExitClassifier, int], MultiExitClassifier] = fix_weights,
) -> Path:
    """Write a run with fixed weights, as if ``dimee train`` had made it; returns ``folder``."""
    settings = TrainSettings(task, str(data), str(encoder), split=split, bf16=False)
    parts = load_split(settings.data, get_task(task), split, settings.seed)
    model = fix(new_model(str(encoder), len(get_task(task).labels), "mean"), seed)
    facts: dict[str, Any] = asdict(settings) | {
        "licence": "none",
        "before": None,
        "data_hash": data_hash(parts.train + parts.validation),
        "examples": {
            "train": len(parts.train),
            "validation": len(parts.validation),
            "test": len(parts.test),
        },
        "validation_accuracy_by_exit": [50.0] * model.layers,
    }
    save_model(model, folder / "model", facts)
    save_tokenizer(load_tokenizer(str(encoder)), folder / "model" / "tokenizer.json")
    return folder
