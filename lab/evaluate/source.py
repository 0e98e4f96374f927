"""Sources of a trained encoder's outputs: the run itself, or a folder that holds them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from lab.data.examples import Example, Split, load_examples
from lab.data.tasks import Task
from lab.evaluate.choose_lambda import exit0_of_run
from lab.evaluate.groups import with_groups
from lab.evaluate.outputs import FACTS, Outputs
from lab.evaluate.samples import Samples, samples_of_run
from lab.models.run import Run
from shared.bundle.correctness_heads import Floats
from shared.errors import InvalidInput


class Source(Protocol):
    """Interface of a trained encoder to `lab.evaluate.evaluate`."""

    @property
    def source(self) -> str:
        """``run`` or ``outputs``."""
        ...

    @property
    def added(self) -> set[str]:
        """Parts that were computed from the texts because the folder lacks them, in words."""
        ...

    @property
    def folder(self) -> Path:
        """Folder that holds it."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """Settings and measurements of the training."""
        ...

    @property
    def task(self) -> Task:
        """The task that it was trained for."""
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
        """Samples of the validation part."""
        ...

    def reported(self, on: str) -> Samples:
        """Samples of the part ``on``: ``test`` or ``glue``."""
        ...

    def samples_of(self, examples: list[Example], name: str) -> Samples:
        """Samples of other texts; refused where there is no model."""
        ...

    def exit0(self) -> tuple[Floats, Floats]:
        """Weights and bias of the embedding classifier."""
        ...


class RunSource:
    """A training run with its model; outputs are computed once and cached in its folder."""

    source = "run"

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
        """Samples of the validation part."""
        examples = self._split.validation
        return with_groups(self.samples_of(examples, "validation"), examples)

    def reported(self, on: str) -> Samples:
        """Samples of the run's own test part, or of GLUE's validation file."""
        if on == "glue":
            data = self._data or self.facts["data"]
            return self.samples_of(load_examples(data, self.task, "validation"), on)
        return self.samples_of(self._split.test, on)

    def samples_of(self, examples: Sequence[Example], name: str) -> Samples:
        """Samples of any texts."""
        return samples_of_run(self.run, examples, name)

    def exit0(self) -> tuple[Floats, Floats]:
        """Weights and bias of the embedding classifier, fitted on the training part."""
        return exit0_of_run(self.run, self._split.train)


def open_source(folder: Path, data: str | None = None) -> RunSource | Outputs:
    """Return the run or the folder of outputs at ``folder``; raises `InvalidInput` for others."""
    if (folder / "model").is_dir():
        return RunSource(Run(folder), data)
    if (folder / FACTS).is_file():
        return Outputs(folder, data)
    raise InvalidInput(
        f"run: {folder} holds neither a trained model nor exit outputs; "
        "give the --out of dimee train or of dimee outputs"
    )
