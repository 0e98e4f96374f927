"""Labelled texts from JSON lines, as the studies and benchmarks of the testbed send them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of a task's text fields in its JSON lines; ``pair`` for tasks of two texts."""

    text: str
    pair: str | None = None


FIELDS = {
    "sst2": Fields("sentence"),
    "cola": Fields("sentence"),
    "mrpc": Fields("sentence1", "sentence2"),
    "qqp": Fields("question1", "question2"),
    "qnli": Fields("question", "sentence"),
    "mnli": Fields("premise", "hypothesis"),
}


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text, or a pair of texts, with the index of its label."""

    text: str
    pair: str | None
    label: int


def task_fields(task: str) -> Fields:
    """Return the field names of a task; raises `InvalidInput` for an unknown one."""
    if task not in FIELDS:
        raise InvalidInput(f"bundle: its task is {task!r}; choose a bundle of {', '.join(FIELDS)}")
    return FIELDS[task]


def read_labelled_texts(source: Path, task: str, labels: int) -> list[LabelledText]:
    """Read a file of JSON lines, or ``validation.jsonl`` of a folder.

    ``labels`` is the number of labels of ``task``. Raises `InvalidInput` with the number of a line
    that is not valid.
    """
    file = source / "validation.jsonl" if source.is_dir() else source
    fields = task_fields(task)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"data: {str(source)!r} cannot be read ({error}); "
            "give a folder with validation.jsonl in UTF-8"
        ) from None
    texts = [_parse(file, n, line, fields, labels) for n, line in enumerate(lines, start=1)]
    if not texts:
        raise InvalidInput(f"data: {file} is empty; give a file with one JSON object per line")
    return texts


def _parse(file: Path, number: int, line: str, fields: Fields, labels: int) -> LabelledText:
    try:
        row: dict[str, Any] = json.loads(line)
        text, label = row[fields.text], row["label"]
        pair = row[fields.pair] if fields.pair else None
    except (ValueError, LookupError, TypeError):
        names = ", ".join(filter(None, (fields.text, fields.pair, "label")))
        raise InvalidInput(
            f"data: {file} line {number} is not a JSON object with the fields {names}"
        ) from None
    for value in (text, pair) if fields.pair else (text,):
        if not isinstance(value, str) or not value.strip():
            raise InvalidInput(f"data: {file} line {number} has an empty text")
    if type(label) is not int or not 0 <= label < labels:
        raise InvalidInput(
            f"data: {file} line {number} has the label {label!r}; "
            f"give a number of 0 to {labels - 1}"
        )
    return LabelledText(text, pair, label)
