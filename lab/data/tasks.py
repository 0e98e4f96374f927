"""The GLUE tasks of the paper: field names and labels."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import InvalidInput


@dataclass(frozen=True)
class Task:
    """A text-classification task, with the field names and label numbers of ``nyu-mll/glue``."""

    name: str
    text_field: str
    pair_field: str | None
    labels: tuple[str, ...]
    hub_validation: str = "validation"
    """The hub's name of the split that a folder has as ``validation.jsonl``."""


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("sst2", "sentence", None, ("negative", "positive")),
        Task("cola", "sentence", None, ("unacceptable", "acceptable")),
        Task("mrpc", "sentence1", "sentence2", ("not_equivalent", "equivalent")),
        Task("qnli", "question", "sentence", ("entailment", "not_entailment")),
        Task("qqp", "question1", "question2", ("not_duplicate", "duplicate")),
        Task(
            "mnli",
            "premise",
            "hypothesis",
            ("entailment", "neutral", "contradiction"),
            hub_validation="validation_matched",
        ),
    )
}


def get_task(name: str) -> Task:
    """Return the task called ``name``; raises `InvalidInput` with the known names otherwise."""
    try:
        return TASKS[name]
    except KeyError:
        raise InvalidInput(
            f"task: {name!r} is not known; choose one of {', '.join(TASKS)}"
        ) from None
