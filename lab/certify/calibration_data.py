"""Examples to calibrate a bundle on, without those that its exits or heads were fitted on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.data.examples import (
    Example,
    data_hash,
    hold_out_sentences,
    hold_out_texts,
    load_examples,
    paper_split,
)
from lab.data.tasks import Task, get_task
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

    ``source`` is a file, a folder or a hub's data set (default: `glue_source`). Of a folder, it
    takes the bundle's test part if the bundle was trained on it, or else the file ``validation``.
    Texts that the bundle was trained on are left out. Raises `InvalidInput` for a file that the
    bundle was trained on, for labels of another task, or if nothing is left.
    """
    task = _task(bundle)
    source = source or glue_source(task)
    if Path(source).is_file():
        examples = load_examples(source, task, "validation", labelled)
        if training_examples(bundle, task, examples) is not None:
            raise InvalidInput(
                f"data: this bundle's exits and correctness heads were fitted on {source}, so it "
                "cannot certify them; give examples that they have not seen",
                field="data",
            )
        return CalibrationData(
            examples, f"all of {source}; it is unknown whether the bundle was trained on them"
        )
    trained_on, test = None, None
    if not Path(source).is_dir() or (Path(source) / "train.jsonl").is_file():
        train = load_examples(source, task, "train")
        trained_on = training_examples(bundle, task, train)
        if trained_on is not None and bundle.manifest.accuracy.get("split") == "paper":
            test = paper_split(train, bundle.manifest.seed).test
    examples = test or load_examples(source, task, "validation", labelled)
    name = "the test part of" if test else "the file validation of"
    if trained_on is None:
        description = f"{name} {source}; it is unknown whether the bundle was trained on them"
        return CalibrationData(examples, description)
    seen = {(row.text, row.pair) for row in trained_on}
    fresh = [row for row in examples if (row.text, row.pair) not in seen]
    if not fresh:
        raise InvalidInput(
            f"data: the bundle was trained on every text of {name} {source}; give other data",
            field="data",
        )
    omitted = len(examples) - len(fresh)
    note = f" (without {omitted:,} that they were fitted on)" if omitted else ""
    return CalibrationData(
        fresh,
        f"{name} {source}, which neither exits nor heads have seen{note}; the bundle's card "
        "reports them too, so measure the chosen setting on other data",
    )


def glue_source(task: Task) -> str:
    """Return GLUE's data of a task: the folder in ``DIMEE_GLUE``, in `GLUE`, or the hub's name."""
    for folder in (Path(os.environ.get("DIMEE_GLUE", GLUE)), GLUE):
        if (folder / task.name).is_dir():
            return str(folder / task.name)
    return f"{HUB}:{task.name}"


def training_examples(
    bundle: Bundle, task: Task, examples: Sequence[Example]
) -> list[Example] | None:
    """Return the training and validation part of a training file that the bundle was trained on.

    None if the bundle was trained on another file, or on a part of this one. The manifest's hash of
    the parts, cut with the bundle's seed, decides.
    """
    manifest = bundle.manifest
    if data_hash(examples) == manifest.data_hash:
        return list(examples)
    try:
        if manifest.accuracy.get("split") == "paper":
            split = paper_split(examples, manifest.seed)
            train, validation = split.train, split.validation
        else:
            hold_out = hold_out_sentences if task.name == "sst2" else hold_out_texts
            train, validation = hold_out(examples, manifest.seed)
    except InvalidInput:  # too few to split, so no bundle was trained on them
        return None
    return train + validation if data_hash(train + validation) == manifest.data_hash else None


def _task(bundle: Bundle) -> Task:
    task = get_task(bundle.manifest.task)
    if task.labels != bundle.manifest.labels:
        raise InvalidInput(
            f"bundle: {bundle.path} has the labels {', '.join(bundle.manifest.labels)}, and "
            f"{task.name} has {', '.join(task.labels)}; export the bundle again"
        )
    return task
