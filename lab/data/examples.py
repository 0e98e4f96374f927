"""Labelled examples, from files or from a hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from lab.data.labels import ordered_labels
from lab.data.readers import Row, Table, check_columns
from lab.data.sources import open_table
from lab.data.tasks import Task
from shared.errors import InvalidInput
from shared.field_types import refused_character
from shared.labels import are_numbered, label_indices, label_name, listed


@dataclass(frozen=True)
class Example:
    """One labelled text, or pair of texts; ``label`` is `UNLABELLED` where there is none."""

    text: str
    pair: str | None
    label: int


UNLABELLED = -1


def load_examples(source: str, task: Task, split: str, labelled: bool = True) -> list[Example]:
    """Read the examples of one split of ``task``.

    ``source`` is a folder with a file for each split (``SPLIT.csv``, ``.tsv``, ``.jsonl`` or
    ``.parquet``), one file, or a hub's data set (``owner/name`` or ``owner/name:config``). With
    ``labelled=False`` labels may be missing, or −1 as in GLUE's test files. Raises `InvalidInput`
    if the source cannot be read or is empty, a field is missing, or a label is not the task's.
    """
    with _reading(source, split):
        table = open_table(source, split, _hub_split(source, task, split))
        fields = (task.text_field, task.pair_field, task.label_field if labelled else None)
        check_columns(table, [field for field in fields if field])
        examples = [_example(row, task, table, labelled) for row in table.rows]
    if not examples:
        raise InvalidInput(
            f"data: the split {split!r} of {source!r} is empty; fill it, or give other data"
        )
    return examples


def labels_of_data(source: str, text_field: str, label_field: str) -> tuple[str, ...]:
    """Return the labels of the training data in order: those of the hub, or all that occur.

    Raises `InvalidInput` if a row has no label, or one that is neither string nor whole number.
    """
    with _reading(source, "train"):
        table = open_table(source, "train")
        check_columns(table, [text_field, label_field])
        if names := table.class_names.get(label_field):
            return names
        return ordered_labels(_label(row, table, label_field) for row in table.rows)


def check_classes(parts: dict[str, Iterable[int]], task: Task) -> None:
    """Raise `InvalidInput` if the training part lacks a class, or another part has only one."""
    for name, labels in parts.items():
        present = set(labels)
        missing = set(range(len(task.labels))) - present
        if missing and (name == "training" or len(present) < 2):
            raise InvalidInput(
                f"data: the {name} part has no example of {task.labels[min(missing)]!r}; "
                "give more data, or another --seed"
            )


def data_hash(examples: Sequence[Example]) -> str:
    """Return the SHA-256 of the examples in order: it identifies the data without containing it."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.text, example.pair, example.label]).encode())
    return digest.hexdigest()


@contextmanager
def _reading(source: str, split: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidInput(
            f"data: {source!r} cannot be read ({error.strerror}); "
            f"give a file, or a folder with {split}.jsonl, that you may read"
        ) from error


def _hub_split(source: str, task: Task, split: str) -> str:
    is_config = source.partition(":")[2] == task.name
    return task.hub_validation if split == "validation" and is_config else split


def _example(row: Row, task: Task, table: Table, labelled: bool) -> Example:
    text = _text(row, task.text_field, table)
    pair = _text(row, task.pair_field, table) if task.pair_field else None
    if not labelled and row.values.get(task.label_field) in (None, "", UNLABELLED):
        return Example(text, pair, UNLABELLED)
    name = _label(row, table, task.label_field)
    index = label_indices(task.labels).get(name)
    if index is None:
        if name == str(UNLABELLED):
            raise InvalidInput(
                f"data: {table.source} {row.place} has no label (−1): GLUE does not publish those "
                "of its test files; use the training or validation file"
            )
        numbers = f", or 0 to {len(task.labels) - 1}" if are_numbered(task.labels) else ""
        raise InvalidInput(
            f"data: {table.source} {row.place} has label {row.values[task.label_field]!r}; "
            f"{task.name} has {listed(task.labels)}{numbers}; correct it, or the labels of the task"
        )
    return Example(text, pair, index)


def _value(row: Row, field: str, table: Table) -> object:
    if field not in row.values:
        raise InvalidInput(
            f"data: {table.source} {row.place} has no field {field!r}; it has "
            f"{', '.join(row.values) or 'none'}: add the field, or name another"
        )
    return row.values[field]


def _text(row: Row, field: str, table: Table) -> str:
    text = _value(row, field, table)
    place = f"{table.source} {row.place}"
    if not isinstance(text, str) or not text.strip():
        raise InvalidInput(f"data: {place} has no text in {field!r}; remove the row or fill it")
    if refused := refused_character(text):
        raise InvalidInput(f"data: {place} holds {refused} in {field!r}; remove or repair the row")
    return text


def _label(row: Row, table: Table, field: str) -> str:
    """Return the name of the row's label, or its number if the data give that."""
    value = _value(row, field, table)
    try:
        name = label_name(value)
    except ValueError as error:
        raise InvalidInput(
            f"data: {table.source} {row.place} has label {value!r}, which is {error}"
        ) from None
    if not name:
        raise InvalidInput(
            f"data: {table.source} {row.place} has no label in {field!r}; remove the row or fill it"
        )
    names = table.class_names.get(field, ())
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return names[value]
    return name
