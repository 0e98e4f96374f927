"""Examples to calibrate a bundle on, without those that its exits or heads were fitted on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.data.examples import Example, data_hash, load_examples
from lab.data.sources import has_split, is_file
from lab.data.splits import Split, split_examples
from lab.data.tasks import TASKS, Task, task_of_bundle
from shared.bundle.loading import Bundle
from shared.errors import InvalidInput

HUB = "nyu-mll/glue"
GLUE = Path("../shared/glue")


@dataclass(frozen=True)
class CalibrationData:
    """Examples to calibrate on, and their ``description`` for messages."""

    examples: list[Example]
    description: str


def load_calibration_examples(
    bundle: Bundle, source: str | None, labelled: bool = True
) -> CalibrationData:
    """Read examples that the bundle was not trained on.

    ``source`` is a file, a folder or a hub's data set (default: `glue_source`). If the bundle was
    trained on a part of it, its test part is taken; else a file is taken whole, and of a folder the
    file ``validation``, or ``test`` if ``validation`` was the validation part. Texts that the
    bundle was trained on are left out. Raises `InvalidInput` for a file that the bundle was trained
    on, for labels of another task, or if nothing is left.
    """
    task = task_of_bundle(bundle.manifest, bundle.path)
    source = source or glue_source(task)
    if is_file(source):
        return _of_file(bundle, task, source, labelled)
    parts, file = None, "validation"
    if not Path(source).is_dir() or has_split(source, "train"):
        own_validation: list[Example] = []
        if bundle.manifest.accuracy.get("split") == "files" and has_split(source, "test"):
            file = "test"
            if has_split(source, "validation"):
                own_validation = load_examples(source, task, "validation")
        train = load_examples(source, task, "train")
        parts = trained_parts(bundle, task, train, own_validation)
    test = parts.test if parts is not None else []
    examples = test or load_examples(source, task, file, labelled)
    name = f"the test part of {source}" if test else f"the file {file} of {source}"
    return _unseen(examples, parts, name)


def _of_file(bundle: Bundle, task: Task, source: str, labelled: bool) -> CalibrationData:
    examples = load_examples(source, task, "validation", labelled)
    parts = trained_parts(bundle, task, examples)
    if parts is None:
        return _unseen(examples, None, f"all of {source}")
    if not parts.test:
        raise InvalidInput(
            f"data: this bundle's exits and correctness heads were fitted on {source}, so it "
            "cannot certify them; give examples that they have not seen",
            field="data",
        )
    return _unseen(parts.test, parts, f"the test part of {source}")


def _unseen(examples: list[Example], parts: Split | None, name: str) -> CalibrationData:
    """Return the examples without those of the training and validation part."""
    if parts is None:
        description = f"{name}; it is unknown whether the bundle was trained on them"
        return CalibrationData(examples, description)
    seen = {(row.text, row.pair) for row in parts.train + parts.validation}
    unseen = [row for row in examples if (row.text, row.pair) not in seen]
    if not unseen:
        raise InvalidInput(
            f"data: the bundle was trained on every text of {name}; give other data", field="data"
        )
    omitted = len(examples) - len(unseen)
    note = f" (without {omitted:,} that they were fitted on)" if omitted else ""
    return CalibrationData(
        unseen,
        f"{name}, which neither exits nor heads have seen{note}; the bundle's card "
        "reports them too, so measure the chosen setting on other data",
    )


def glue_source(task: Task) -> str:
    """Return GLUE's data of a task: the folder in ``DIMEE_GLUE``, in `GLUE`, or the hub's name.

    Raises `InvalidInput` for a task that is none of GLUE's.
    """
    if task.name not in TASKS:
        raise InvalidInput(
            f"data: the task {task.name} is none of GLUE's; give its data with --data", field="data"
        )
    for folder in (Path(os.environ.get("DIMEE_GLUE", GLUE)), GLUE):
        if (folder / task.name).is_dir():
            return str(folder / task.name)
    return f"{HUB}:{task.name}"


def trained_parts(
    bundle: Bundle,
    task: Task,
    examples: Sequence[Example],
    own_validation: Sequence[Example] = (),
) -> Split | None:
    """Return the parts of a training file that the bundle was trained on.

    None if the bundle was trained on another file. The manifest's hash of the training and the
    validation part, cut with the bundle's seed, decides. ``own_validation`` is the validation part
    if it has its own file.
    """
    manifest = bundle.manifest
    limited = examples[: manifest.training.get("limit")]
    whole = Split([*limited], [*own_validation], [])
    if data_hash(whole.train + whole.validation) == manifest.data_hash:
        return whole
    try:
        split = split_examples(limited, task, manifest.accuracy.get("split", "glue"), manifest.seed)
    except InvalidInput:  # too few to split, so no bundle was trained on them
        return None
    return split if data_hash(split.train + split.validation) == manifest.data_hash else None
