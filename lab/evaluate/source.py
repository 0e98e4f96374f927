"""Outputs of a trained encoder, from the run itself or from a folder of exit outputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch

from lab.data.examples import Example
from lab.data.splits import Split, load_validation_file
from lab.data.tasks import Task
from lab.evaluate.choose_lambda import embedding_classifier_of_run
from lab.evaluate.groups import with_groups
from lab.evaluate.outputs import FACTS, SavedOutputs
from lab.evaluate.samples import Samples, samples_of_run
from lab.models.device import CPU
from lab.models.run import Run
from shared.bundle.correctness_heads import Floats
from shared.errors import InvalidInput


class OutputSource(Protocol):
    """Interface of `RunOutputs` and `lab.evaluate.outputs.SavedOutputs`."""

    @property
    def kind(self) -> str:
        """``run`` or ``outputs``."""
        ...

    @property
    def added(self) -> set[str]:
        """Descriptions of parts that were computed from the texts because the folder lacks them."""
        ...

    @property
    def folder(self) -> Path:
        """Folder of the run or of the outputs."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """Settings and measurements of the training."""
        ...

    @property
    def task(self) -> Task:
        """Task of the training."""
        ...

    @property
    def layers(self) -> int:
        """Layers of the encoder, each with an exit."""
        ...

    @property
    def hidden_size(self) -> int:
        """Width of the encoder."""
        ...

    def validation(self) -> Samples:
        """Return the samples of the validation part."""
        ...

    def reported(self, on: str) -> Samples:
        """Return the samples of the part ``on``: ``test`` or ``glue``."""
        ...

    def samples_of(self, examples: list[Example], name: str) -> Samples:
        """Return the samples of other texts; raises `InvalidInput` without a model."""
        ...

    def embedding_classifier(self) -> tuple[Floats, Floats]:
        """Return weights and bias of the embedding classifier."""
        ...


class RunOutputs:
    """A training run with its model; outputs are computed once and cached in its folder."""

    kind = "run"

    def __init__(self, run: Run, data: str | None = None) -> None:
        self.run = run
        self.added: set[str] = set()
        self.folder = run.folder
        self.facts = run.facts
        self.task = run.task
        self.layers = run.model.layers
        self.hidden_size = int(run.model.encoder.config.hidden_size)
        self._data = data

    @cached_property
    def _split(self) -> Split:
        return self.run.split(self._data)

    def validation(self) -> Samples:
        """Return the samples of the validation part."""
        examples = self._split.validation
        return with_groups(self.samples_of(examples, "validation"), examples)

    def reported(self, on: str) -> Samples:
        """Return the samples of the run's own test part, or of GLUE's validation file."""
        if on == "glue":
            data = self._data or self.facts["data"]
            examples = load_validation_file(data, self.task, self.facts["split"])
            return self.samples_of(examples, on)
        return self.samples_of(self._split.test, on)

    def samples_of(self, examples: Sequence[Example], name: str) -> Samples:
        """Return the samples of any texts."""
        return samples_of_run(self.run, examples, name)

    def embedding_classifier(self) -> tuple[Floats, Floats]:
        """Return weights and bias of the embedding classifier, fitted on the training part."""
        return embedding_classifier_of_run(self.run, self._split.train)


def open_outputs(
    folder: Path, data: str | None = None, device: torch.device = CPU
) -> RunOutputs | SavedOutputs:
    """Open a run or a folder of exit outputs; raises `InvalidInput` for other folders."""
    if (folder / "model").is_dir():
        return RunOutputs(Run(folder, device), data)
    if (folder / FACTS).is_file():
        return SavedOutputs(folder, data)
    raise InvalidInput(
        f"run: {folder} holds neither a trained model nor exit outputs; "
        "give the --out of dimee train or of dimee outputs"
    )
