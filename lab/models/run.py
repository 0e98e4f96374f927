"""A training run on disk: its model, its facts and its split."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from lab.data.examples import Split, load_split
from lab.data.tasks import Task, get_task
from lab.models.encoders import load_tokenizer
from lab.models.model import MultiExitClassifier, load_model


class Run:
    """The run that ``dimee train`` wrote to ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaded = load_model(folder / "model")

    @property
    def model(self) -> MultiExitClassifier:
        """The model with its exits, in evaluation mode."""
        return self._loaded[0]

    @property
    def facts(self) -> dict[str, Any]:
        """Settings and measurements of the training."""
        return self._loaded[1]

    @property
    def task(self) -> Task:
        """Task of the training."""
        return get_task(self.facts["task"])

    @property
    def tokenizer_file(self) -> Path:
        """Tokenizer file that a bundle includes."""
        return self.folder / "model" / "tokenizer.json"

    @cached_property
    def tokenizer(self) -> Any:
        """Tokenizer of the encoder for torch."""
        return load_tokenizer(self.facts["encoder"])

    def split(self, data: str | None = None) -> Split:
        """Return the split of the training; ``data`` is the folder of the data if it moved."""
        facts = self.facts
        source = data or facts["data"]
        return load_split(source, self.task, facts["split"], facts["seed"], facts["limit"])

    def model_hash(self) -> str:
        """Return the SHA-256 of the weights."""
        with (self.folder / "model" / "weights.safetensors").open("rb") as weights:
            return hashlib.file_digest(weights, "sha256").hexdigest()


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
