"""A training run on disk: its model, its facts and its split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from lab.data.examples import Example
from lab.data.splits import Split, load_split
from lab.data.tasks import Task, task_of_facts
from lab.models.device import CPU
from lab.models.model import MultiExitClassifier, load_model
from lab.models.predict import ExitOutputs, predict
from shared.files import refuse_special_files
from shared.inference.tokenizer import TextEncoder


class Run:
    """The run that ``dimee train`` wrote to ``folder``."""

    def __init__(self, folder: Path, device: torch.device = CPU) -> None:
        self.folder = folder
        self.device = device
        """Device of the passes of the model, which is on the CPU between them."""
        refuse_special_files(folder, "run")
        self._loaded = load_model(folder / "model")

    @property
    def model(self) -> MultiExitClassifier:
        """The model with its exits, in evaluation mode."""
        return self._loaded[0]

    @property
    def facts(self) -> dict[str, Any]:
        """Settings and measurements of the training."""
        return self._loaded[1]

    @cached_property
    def task(self) -> Task:
        """Task of the training."""
        return task_of_facts(self.facts)

    @property
    def tokenizer_file(self) -> Path:
        """Tokenizer file that a bundle includes."""
        return self.folder / "model" / "tokenizer.json"

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """Tokenizer of the training, with its limit of tokens."""
        return TextEncoder(self.tokenizer_file, self.facts["max_tokens"])

    def predict(self, examples: Sequence[Example]) -> ExitOutputs:
        """Return the outputs of all exits for ``examples``."""
        return predict(self.model, self.text_encoder, examples, self.device)

    def split(self, data: str | None = None) -> Split:
        """Return the split of the training; ``data`` is the folder of the data if it moved."""
        facts = self.facts
        source = data or facts["data"]
        return load_split(source, self.task, facts["split"], facts["seed"], facts["limit"])

    def model_hash(self) -> str:
        """Return the SHA-256 of the weights."""
        with (self.folder / "model" / "weights.safetensors").open("rb") as weights:
            return hashlib.file_digest(weights, "sha256").hexdigest()


TIME_FACTS = ("training_seconds",)
"""Facts that differ between equal trainings; a bundle has none of them."""
PATH_FACTS = ("data", "teacher", "start_from")
"""Facts of a run that are paths on the machine of the training."""
MODEL_FACTS = ("encoder", "from_classifier")
"""Facts of a run that are paths of folders, or names of models on a hub."""


def portable_facts(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a run and of its parent runs, with file names instead of paths.

    The keys ``before`` and ``mixed`` hold the run that it started from and the runs whose weights
    were averaged.
    """
    portable: dict[str, Any] = {}
    for name, value in facts.items():
        if name in TIME_FACTS:
            continue
        if name == "before" and value:
            portable[name] = portable_facts(value)
        elif name == "mixed" and value:
            portable[name] = value | {"with": [portable_facts(part) for part in value["with"]]}
        elif name in PATH_FACTS:
            portable[name] = Path(value).name if value else value
        elif name in MODEL_FACTS and value:
            portable[name] = _portable_name(value)
        else:
            portable[name] = value
    return portable


def _portable_name(model: str) -> str:
    """Return the folder's name of a model in a folder; names on a hub stay unchanged."""
    path = Path(model)
    return path.resolve().name if path.is_absolute() or path.is_dir() else model
