"""A training run on disk: its model, its facts, its split."""

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
    """What ``dimee train`` left in a folder; the model is read when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaded = load_model(folder / "model")

    @property
    def model(self) -> MultiExitClassifier:
        """The trained exits, in evaluation mode."""
        return self._loaded[0]

    @property
    def facts(self) -> dict[str, Any]:
        """Settings and measurements of the training."""
        return self._loaded[1]

    @property
    def task(self) -> Task:
        """The task that it was trained for."""
        return get_task(self.facts["task"])

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer as the bundle ships it."""
        return self.folder / "model" / "tokenizer.json"

    @cached_property
    def tokenizer(self) -> Any:
        """The encoder's tokenizer for torch."""
        return load_tokenizer(self.facts["encoder"])

    def split(self, data: str | None = None) -> Split:
        """The very split of the training, from the same data, at ``data`` if it moved."""
        facts = self.facts
        source = data or facts["data"]
        return load_split(source, self.task, facts["split"], facts["seed"], facts["limit"])

    def model_hash(self) -> str:
        """SHA-256 of the weights."""
        with (self.folder / "model" / "weights.safetensors").open("rb") as weights:
            return hashlib.file_digest(weights, "sha256").hexdigest()


PLACES = ("data", "teacher", "start_from")
"""Facts of a run that are paths of the machine that it ran on."""


def recorded(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of a run and of those that it comes from, without folders of this machine."""
    kept: dict[str, Any] = {}
    for name, value in facts.items():
        if name == "before" and value:
            kept[name] = recorded(value)
        elif name == "mixed" and value:
            kept[name] = value | {"with": [recorded(part) for part in value["with"]]}
        elif name in PLACES:
            kept[name] = Path(value).name if value else value
        else:
            kept[name] = value
    return kept
