"""The task of a training: from options, from ``task.json`` beside the data, and from the data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lab.data.examples import labels_of_data
from lab.data.labels import check_labels
from lab.data.sources import columns_of, has_split
from lab.data.tasks import TASKS, Task
from shared.errors import InvalidInput
from shared.json_text import parse_json
from shared.labels import label_name

TASK_FILE = "task.json"
FIELDS = (
    "name", "text_field", "pair_field", "label_field", "labels", "metric", "hold_out", "split",
)  # fmt: skip
"""Fields of ``task.json``; options have the same names."""
_FILE_OF_A_SPLIT = ("train", "data")
_EXAMPLE = '{"text_field": "text", "metric": "macro-f1"}'


def resolve_task(data: str, options: Mapping[str, Any]) -> tuple[Task, str]:
    """Return the task of ``data`` and the kind of split.

    ``options`` has `FIELDS` that were given; they win over ``task.json``. A GLUE task needs no
    field. Labels that are not given are those of the training data. Raises `InvalidInput` for
    missing and unknown fields, and for labels that are no classes.
    """
    given = {name: value for name, value in options.items() if value is not None}
    file = _read_task_file(data)
    merged = file | given
    split = merged.pop("split", None)
    named = merged.pop("name", None)
    name = named or name_of_data(data)
    if name in TASKS and (named or not merged):
        return replace(TASKS[name], **merged), split or "paper"
    text_field = merged.pop("text_field", None)
    if text_field is None:
        raise InvalidInput(
            f"text_field: name the field of the texts with --text-field or in {TASK_FILE}; {data} "
            f"has {', '.join(columns_of(data))} (only {', '.join(TASKS)} need none)"
        )
    label_field = merged.setdefault("label_field", "label")
    labels = merged.pop("labels", None) or labels_of_data(data, text_field, label_field)
    task = Task(name, text_field, merged.pop("pair_field", None), labels, **merged)
    if split is None:
        has_files = has_split(data, "validation") or has_split(data, "test")
        split = "files" if has_files else "grouped"
    return task, split


def name_of_data(data: str) -> str:
    """Return a task's name made from the name of a file, a folder or a hub's data set."""
    path = Path(data)
    if path.is_file():
        name = path.stem
        if name in _FILE_OF_A_SPLIT:
            name = path.resolve().parent.name
    elif path.is_dir():
        name = path.resolve().name
    else:
        hub_name, _, config = data.rpartition("/")[2].partition(":")
        name = config if config in TASKS else f"{hub_name}-{config}"
    return re.sub(r"[^\w.-]+", "-", name).strip("-._")[:64] or "task"


def _read_task_file(data: str) -> dict[str, Any]:
    path = Path(data)
    file = (path if path.is_dir() else path.parent) / TASK_FILE
    if not path.exists() or not file.is_file():
        return {}
    try:
        fields = parse_json(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise InvalidInput(f"task: {file} is not UTF-8; write one JSON object in UTF-8") from None
    except OSError as error:
        raise InvalidInput(
            f"task: {file} cannot be read ({error.strerror}); give a file that you may read"
        ) from None
    except ValueError as error:
        raise InvalidInput(
            f"task: {file} is not JSON ({error}); write one object like {_EXAMPLE}"
        ) from None
    if not isinstance(fields, dict):
        raise InvalidInput(f"task: {file} is not a JSON object; write one like {_EXAMPLE}")
    for name, value in fields.items():
        if name not in FIELDS:
            raise InvalidInput(
                f"task: {file} has {name!r}; the known fields are {', '.join(FIELDS)}"
            )
        if name == "labels":
            fields[name] = _labels(value, file)
        elif value is not None and not isinstance(value, str):
            raise InvalidInput(f"task: {file} has {name} = {value!r}; give a string")
    return {name: value for name, value in fields.items() if value is not None}


def _labels(value: object, file: Path) -> tuple[str, ...]:
    try:
        if not isinstance(value, list):
            raise ValueError("no list; give the names of the labels in their order")
        labels = tuple(label_name(label) for label in value)
    except ValueError as error:
        raise InvalidInput(f"task: {file} has labels = {value!r}, which is {error}") from None
    check_labels(labels)
    return labels
