"""Tasks: fields of the data, names of the labels, metric and hold-out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.data.labels import check_labels
from shared.bundle.manifest import Manifest
from shared.errors import InvalidInput

METRICS = ("accuracy", "f1", "matthews", "macro-f1")
HOLD_OUTS = ("texts", "phrases")
TASK_FACTS = ("text_field", "pair_field", "label_field", "labels", "metric", "hold_out")
"""Facts of a run that describe its task, next to the name ``task``. A run of one of the `TASKS`,
unchanged, has the name alone."""
_NAME = re.compile(r"\w[\w.-]{0,63}")


def check_name(name: str) -> None:
    """Raise `InvalidInput` unless ``name`` can be part of a file's name."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"task: the name {name!r} is not allowed; use at most 64 letters, digits, "
            "'.', '_' and '-', and begin with a letter or digit"
        )


@dataclass(frozen=True)
class Task:
    """A classification task of one or two texts; raises `InvalidInput` if it is not possible.

    The label of a row is one of the names in ``labels``. If none of these is a whole number, it may
    also be the number of a name, counted from 0, as in GLUE.
    """

    name: str
    text_field: str
    pair_field: str | None
    labels: tuple[str, ...]
    label_field: str = "label"
    metric: str = "accuracy"
    """``accuracy``, ``f1`` (of the second of two labels), ``matthews`` or ``macro-f1``."""
    hold_out: str = "texts"
    """``texts``: no text is in two parts of the data; ``phrases``: and no eight words of one."""
    hub_validation: str = "validation"
    """The hub's name of the split that a folder has as ``validation``."""

    def __post_init__(self) -> None:
        check_labels(self.labels)
        check_name(self.name)
        for field, value, allowed in (
            ("metric", self.metric, METRICS),
            ("hold_out", self.hold_out, HOLD_OUTS),
        ):
            if value not in allowed:
                raise InvalidInput(
                    f"{field}: {value!r} is not known; choose one of {', '.join(allowed)}"
                )
        if self.metric == "f1" and len(self.labels) != 2:
            raise InvalidInput(
                f"metric: f1 needs two labels, and {self.name} has {len(self.labels):,}; "
                "choose macro-f1"
            )
        fields = [field for field in self.fields if field]
        if len(set(fields)) < len(fields):
            raise InvalidInput(
                f"{self.name}: text, pair and label must be different fields, "
                f"not {', '.join(fields)}; give each its own"
            )

    @property
    def fields(self) -> tuple[str | None, ...]:
        """The fields of the text, of its pair and of the label."""
        return self.text_field, self.pair_field, self.label_field


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("sst2", "sentence", None, ("negative", "positive"), hold_out="phrases"),
        Task("cola", "sentence", None, ("unacceptable", "acceptable"), metric="matthews"),
        Task("mrpc", "sentence1", "sentence2", ("not_equivalent", "equivalent"), metric="f1"),
        Task("qnli", "question", "sentence", ("entailment", "not_entailment")),
        Task("qqp", "question1", "question2", ("not_duplicate", "duplicate"), metric="f1"),
        Task(
            "mnli",
            "premise",
            "hypothesis",
            ("entailment", "neutral", "contradiction"),
            hub_validation="validation_matched",
        ),
    )
}
"""The GLUE tasks of the paper, with the fields and label numbers of ``nyu-mll/glue``."""


def get_task(name: str) -> Task:
    """Return the GLUE task ``name``; raises `InvalidInput` with the known names otherwise."""
    try:
        return TASKS[name]
    except KeyError:
        raise InvalidInput(
            f"task: {name!r} is not known; choose one of {', '.join(TASKS)}, "
            "or describe it with a text field and labels"
        ) from None


def task_of_facts(facts: Mapping[str, Any]) -> Task:
    """Return the task of a run's facts; facts without ``text_field`` name one of the `TASKS`."""
    if facts.get("text_field") is None:
        return get_task(facts["task"])
    name = facts["task"]
    return Task(
        name=name,
        text_field=facts["text_field"],
        pair_field=facts.get("pair_field"),
        labels=tuple(facts.get("labels") or ()),
        label_field=facts.get("label_field") or "label",
        metric=facts.get("metric") or "accuracy",
        hold_out=facts.get("hold_out") or "texts",
        hub_validation=TASKS[name].hub_validation if name in TASKS else "validation",
    )


def facts_of_task(task: Task) -> dict[str, Any]:
    """Return the name and the `TASK_FACTS` of ``task``; `task_of_facts` is the inverse."""
    return {"task": task.name} if task == TASKS.get(task.name) else all_facts_of_task(task)


def all_facts_of_task(task: Task) -> dict[str, Any]:
    """Return the name and the `TASK_FACTS` of ``task``, also of one of the `TASKS`."""
    facts = {name: getattr(task, name) for name in TASK_FACTS}
    return {"task": task.name} | facts | {"labels": list(task.labels)}


def task_of_bundle(manifest: Manifest, path: object) -> Task:
    """Return the task of the bundle in ``path``.

    Raises `InvalidInput` if its labels are not those of the task, or if the task is none of the
    `TASKS` and the bundle has no facts of its training.
    """
    facts = {**manifest.training, "task": manifest.task}
    if facts.get("text_field") is None and manifest.task not in TASKS:
        raise InvalidInput(
            f"bundle: {path} does not say which fields of the data the task {manifest.task} reads; "
            "export it again from its run"
        )
    task = task_of_facts(facts)
    if task.labels != manifest.labels:
        raise InvalidInput(
            f"bundle: {path} has the labels {', '.join(manifest.labels)}, and "
            f"{task.name} has {', '.join(task.labels)}; export the bundle again"
        )
    return task
