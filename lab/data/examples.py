"""Labelled examples from JSON lines or from a hub, and their splits."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.data.tasks import Task
from shared.errors import InvalidInput


@dataclass(frozen=True)
class Example:
    """One labelled text, or pair of texts; ``label`` is `UNLABELLED` where there is none."""

    text: str
    pair: str | None
    label: int


UNLABELLED = -1


def load_examples(source: str, task: Task, split: str, labelled: bool = True) -> list[Example]:
    """Read the examples of one split of ``task``.

    ``source`` is a folder that holds ``SPLIT.jsonl``, a file of that shape, or the name of a hub
    data set as ``owner/name:config`` (``nyu-mll/glue:sst2``). With ``labelled=False`` labels may be
    missing, or −1 as in GLUE's test files. Raises `InvalidInput` if the source cannot be read or is
    empty, a field is missing, or a label is not the task's.
    """
    try:
        rows: Iterable[tuple[int, dict[str, Any]]] = enumerate(_rows(source, task, split), start=1)
        if not labelled:
            rows = ((number, {"label": UNLABELLED} | row) for number, row in rows)
        examples = [_example(row, task, number, labelled) for number, row in rows]
    except (OSError, UnicodeDecodeError) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise InvalidInput(
            f"data: {source!r} cannot be read ({why}); "
            f"give a folder that you may read, with {split}.jsonl in UTF-8"
        ) from error
    if not examples:
        raise InvalidInput(
            f"data: the split {split!r} of {source!r} is empty; fill it, or give other data"
        )
    return examples


def _rows(source: str, task: Task, split: str) -> Iterable[dict[str, Any]]:
    path = Path(source)
    if path.is_file():
        return _read_json_lines(path)
    if path.is_dir():
        return _read_json_lines(path / f"{split}.jsonl")
    if ":" in source:
        return _read_hub(source, task, split)
    raise InvalidInput(
        f"data: {source!r} is neither a folder with {split}.jsonl nor owner/name:config; "
        "give one of the two"
    )


def _read_json_lines(path: Path) -> Iterable[dict[str, Any]]:
    if not path.is_file():
        raise InvalidInput(f"data: {path} does not exist; give a folder that holds {path.name}")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InvalidInput(
                    f"data: {path} line {number} is not JSON ({error.msg}); "
                    "write one object per line"
                ) from None
            if not isinstance(row, dict):
                raise InvalidInput(
                    f"data: {path} line {number} is not a JSON object; write one object per line"
                )
            yield row


def _read_hub(source: str, task: Task, split: str) -> Iterable[dict[str, Any]]:
    import datasets

    name, config = source.split(":", 1)
    if config == task.name and split == "validation":
        split = task.hub_validation
    try:
        loaded: Iterable[dict[str, Any]] = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the hub client raises many kinds of exceptions
        raise InvalidInput(
            f"data: {source!r} could not be loaded from a hub ({type(error).__name__}); "
            "without a hub give a folder of JSON lines"
        ) from error
    return loaded


def _example(row: dict[str, Any], task: Task, number: int, labelled: bool) -> Example:
    for field in filter(None, (task.text_field, task.pair_field, "label")):
        if field not in row:
            raise InvalidInput(
                f"data: row {number} has no field {field!r}, which {task.name} needs; "
                "add it, or choose the --task that the data are of"
            )
    label = row["label"]
    if label == UNLABELLED and labelled:
        raise InvalidInput(
            f"data: row {number} has no label (−1): GLUE does not publish those of its test files; "
            "use the training or validation file"
        )
    for field in filter(None, (task.text_field, task.pair_field)):
        if not isinstance(row[field], str) or not row[field].strip():
            raise InvalidInput(
                f"data: row {number} has no text in {field!r}; remove the row or fill it"
            )
        if any("\ud800" <= sign <= "\udfff" for sign in row[field]):
            raise InvalidInput(
                f"data: row {number} has half a character in {field!r} (a lone surrogate); "
                "remove or repair the row"
            )
    least = 0 if labelled else UNLABELLED
    if type(label) is not int or not least <= label < len(task.labels):
        raise InvalidInput(
            f"data: row {number} has label {label!r}; {task.name} has 0 to "
            f"{len(task.labels) - 1}, as whole numbers: correct it, or choose another --task"
        )
    pair = row[task.pair_field] if task.pair_field else None
    return Example(text=row[task.text_field], pair=pair, label=label)


SPLITS = ("paper", "glue")
ROOT_WORDS = 8


@dataclass(frozen=True)
class Split:
    """The parts of the data: ``train`` for the exits, ``validation`` for α and pools, ``test`` to
    report."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]


def load_split(source: str, task: Task, kind: str, seed: int, limit: int | None = None) -> Split:
    """Return the split ``paper`` (80/10/10 of the training file) or ``glue``.

    The test part of ``glue`` is GLUE's validation file, which is used for nothing else. For SST-2,
    400 long texts of the training file and every text that shares a phrase with one of them are
    held out for early stopping, α and the pools: SST-2's training file consists of phrases cut from
    sentences, and a random split has parts of nearly every held-out sentence in its training part.
    For the other tasks a tenth is held out (`hold_out_texts`).
    """
    if kind not in SPLITS:
        raise InvalidInput(f"split: {kind!r} is not known; choose one of {', '.join(SPLITS)}")
    examples = load_examples(source, task, "train")[:limit]
    if kind == "paper":
        return paper_split(examples, seed)
    hold_out = hold_out_sentences if task.name == "sst2" else hold_out_texts
    train, validation = hold_out(examples, seed)
    return Split(train, validation, load_examples(source, task, "validation"))


def hold_out_texts(examples: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """Hold out at most a tenth so that no text, first or second of a pair, is in both parts.

    Rows that share a text form a group (a question of QQP occurs in several pairs), and whole
    groups are held out. A group larger than the rest of the tenth is never held out.
    """
    groups = groups_over_shared_texts(examples)
    sizes = Counter(groups)
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    remaining, held = max(1, len(examples) // 10), set()
    for group in order:
        if sizes[group] <= remaining:
            held.add(group)
            remaining -= sizes[group]
    grouped = list(zip(examples, groups, strict=True))
    validation = [row for row, group in grouped if group in held]
    train = [row for row, group in grouped if group not in held]
    if not train or not validation:
        raise InvalidInput(
            "data: too few different texts to hold any out; give at least 100, "
            "or use the split 'paper'"
        )
    random.Random(seed).shuffle(train)
    return train, validation


def groups_over_shared_texts(examples: Sequence[Example]) -> list[str]:
    """Return for each row the least text of its group; rows that share a text are in one group."""
    least: dict[str, str] = {}

    def find(text: str) -> str:
        while (parent := least.setdefault(text, text)) != text:
            least[text] = least[parent]
            text = parent
        return text

    for row in examples:
        first, second = find(row.text), find(row.pair or row.text)
        least[max(first, second)] = min(first, second)
    return [find(row.text) for row in examples]


def check_classes(parts: dict[str, Iterable[int]], task: Task) -> None:
    """Raise `InvalidInput` if the labels of a part lack one of the task's classes."""
    for name, labels in parts.items():
        missing = set(range(len(task.labels))) - set(labels)
        if missing:
            raise InvalidInput(
                f"data: the {name} part has no example of {task.labels[min(missing)]!r}; "
                "give more data, or another --seed"
            )


def hold_out_sentences(
    examples: Sequence[Example], seed: int, sentences: int = 400
) -> tuple[list[Example], list[Example]]:
    """Split so that no validation text shares a run of words with a training text.

    Roots are random texts of at least `ROOT_WORDS` words. Validation gets each root, every text
    within it and every text with `ROOT_WORDS` consecutive words of it; training gets the rest.
    """
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    long = [i for i in order if len(examples[i].text.split()) >= ROOT_WORDS]
    roots = long[: min(sentences, max(1, len(long) // 10))]
    if not roots:
        raise InvalidInput(
            f"data: no text has {ROOT_WORDS} words, so none can be held out; use the split 'paper'"
        )
    content = "\n".join(f" {words_of(examples[i])} " for i in roots)
    runs = {run for i in roots for run in word_runs(examples[i])}
    held = [
        f" {words_of(row)} " in content or not runs.isdisjoint(word_runs(row)) for row in examples
    ]
    validation = [row for row, out in zip(examples, held, strict=True) if out]
    train = [examples[i] for i in order if not held[i]]
    if not train:
        raise InvalidInput("data: too few examples to hold any out; give at least 100")
    return train, validation


def words_of(row: Example) -> str:
    """Return the text with single spaces between its words."""
    return " ".join(row.text.split())


def word_runs(row: Example) -> list[str]:
    """Return every sequence of `ROOT_WORDS` consecutive words; a shorter text has none."""
    words = row.text.split()
    return [" ".join(words[i : i + ROOT_WORDS]) for i in range(len(words) - ROOT_WORDS + 1)]


def paper_split(examples: Sequence[Example], seed: int) -> Split:
    """Shuffle with ``seed`` and cut 80/10/10, like the paper."""
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    tenth = len(order) // 10
    if tenth == 0:
        raise InvalidInput(
            f"data: {len(examples)} examples cannot be split 80/10/10; give at least 10"
        )
    test, validation, train = order[:tenth], order[tenth : 2 * tenth], order[2 * tenth :]
    return Split(
        train=[examples[i] for i in train],
        validation=[examples[i] for i in validation],
        test=[examples[i] for i in test],
    )


def data_hash(examples: Sequence[Example]) -> str:
    """Return the SHA-256 of the examples in order: it identifies the data without containing it."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.text, example.pair, example.label]).encode())
    return digest.hexdigest()
