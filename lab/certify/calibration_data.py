"""Which examples a bundle is calibrated on: never those that its exits or its heads have seen."""

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
class Fresh:
    """Examples to calibrate on, and ``what`` they are, for people."""

    examples: list[Example]
    what: str


def fresh_examples(bundle: Bundle, source: str | None, labelled: bool = True) -> Fresh:
    """Read examples that the bundle has not learnt from.

    ``source`` is a file; a folder (or a hub's data set; `glue_source` if it is None) of which the
    bundle's test part is taken if the bundle was made from it, and the file ``validation`` if not.
    Texts that the bundle is known to have learnt from are left out. Raises `InvalidInput` for a
    file that the bundle was made from, labels of another task, or where nothing is left.
    """
    task = _task(bundle)
    source = source or glue_source(task)
    if Path(source).is_file():
        examples = load_examples(source, task, "validation", labelled)
        if learnt_from(bundle, task, examples) is not None:
            raise InvalidInput(
                f"data: {source} is what this bundle's exits and correctness heads were fitted on, "
                "and proves nothing; give examples that they have not seen",
                field="data",
            )
        return Fresh(examples, f"all of {source}; whether the bundle has seen them is not known")
    known, test = None, None
    if not Path(source).is_dir() or (Path(source) / "train.jsonl").is_file():
        train = load_examples(source, task, "train")
        known = learnt_from(bundle, task, train)
        if known is not None and bundle.manifest.accuracy.get("split") == "paper":
            test = paper_split(train, bundle.manifest.seed).test
    examples = test or load_examples(source, task, "validation", labelled)
    name = "the test part of" if test else "the file validation of"
    if known is None:
        what = f"{name} {source}; whether the bundle has seen them is not known"
        return Fresh(examples, what)
    seen = {(row.text, row.pair) for row in known}
    fresh = [row for row in examples if (row.text, row.pair) not in seen]
    if not fresh:
        raise InvalidInput(
            f"data: the bundle has learnt from every text of {name} {source}; give others",
            field="data",
        )
    left = f" (without {len(examples) - len(fresh):,} that have)" if fresh != examples else ""
    return Fresh(
        fresh,
        f"{name} {source}, which neither exits nor heads have seen{left}; the bundle's card "
        "reports them too, so measure what is chosen here on others",
    )


def glue_source(task: Task) -> str:
    """GLUE's data of a task: in the folder ``DIMEE_GLUE``, in `GLUE`, or on the hub."""
    for folder in (Path(os.environ.get("DIMEE_GLUE", GLUE)), GLUE):
        if (folder / task.name).is_dir():
            return str(folder / task.name)
    return f"{HUB}:{task.name}"


def learnt_from(bundle: Bundle, task: Task, examples: Sequence[Example]) -> list[Example] | None:
    """What of a training file the bundle learnt from (training and validation part).

    None if the bundle was not made from this file, or only from a part of it. The manifest's hash
    decides, over the parts as they are cut with the bundle's seed.
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
    except InvalidInput:  # too few to be cut: nothing was ever made from them
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
