"""Labelled examples from a folder of JSON lines or, by name, from a hub; and their splits."""

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
    """Read one file of ``task``; unless ``labelled``, labels may be missing (or −1, as GLUE's).

    ``source`` is a folder that holds ``SPLIT.jsonl``, a file of that shape, or the name of a hub
    data set as ``owner/name:config`` (``nyu-mll/glue:sst2``). Raises `InvalidInput` where the
    source cannot be read, a field is missing, a label is not the task's or nothing is in it.
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
                    f"data: {path} line {number} is not JSON ({error.msg}); write one object a line"
                ) from None
            if not isinstance(row, dict):
                raise InvalidInput(
                    f"data: {path} line {number} is no JSON object; write one object a line"
                )
            yield row


def _read_hub(source: str, task: Task, split: str) -> Iterable[dict[str, Any]]:
    import datasets

    name, config = source.split(":", 1)
    if config == task.name and split == "validation":
        split = task.hub_validation
    try:
        loaded: Iterable[dict[str, Any]] = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the hub client raises many kinds; the user needs one sentence
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
            f"data: row {number} has no label (−1): GLUE keeps those of its test files to itself; "
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
                "remove the row or mend it"
            )
    least = 0 if labelled else UNLABELLED
    if type(label) is not int or not least <= label < len(task.labels):
        raise InvalidInput(
            f"data: row {number} has label {label!r}; {task.name} has 0 to "
            f"{len(task.labels) - 1}, as whole numbers: mend it, or choose another --task"
        )
    pair = row[task.pair_field] if task.pair_field else None
    return Example(text=row[task.text_field], pair=pair, label=label)


SPLITS = ("paper", "glue")
ROOT_WORDS = 8


@dataclass(frozen=True)
class Split:
    """What the exits learn from, what α and the pools are made of, and what is reported."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]


def load_split(source: str, task: Task, kind: str, seed: int, limit: int | None = None) -> Split:
    """The split ``paper`` (80/10/10 of the training file) or ``glue``.

    ``glue`` reports on GLUE's own validation file, which it never looks at otherwise. It holds back
    400 long texts of the training file and every text that shares a phrase with one of them, for
    early stopping, α and the pools: SST-2's training file is cut from sentences into phrases, and a
    random split has parts of nearly every held-out sentence in its training part. Of the other
    tasks it holds back a tenth (`hold_out_texts`).
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
    """Hold out a tenth at most, so that no text stands in both parts, first or second of a pair.

    A question of QQP comes with several partners, now first and now second, so that whole groups
    of rows that share a text are held out; a group of more than what is left of the tenth never is.
    """
    groups = groups_over_shared_texts(examples)
    sizes = Counter(groups)
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    room, held = max(1, len(examples) // 10), set()
    for group in order:
        if sizes[group] <= room:
            held.add(group)
            room -= sizes[group]
    parted = list(zip(examples, groups, strict=True))
    validation = [row for row, group in parted if group in held]
    train = [row for row, group in parted if group not in held]
    if not train or not validation:
        raise InvalidInput(
            "data: too few texts that differ to hold any out; give 100 at least, "
            "or use the split 'paper'"
        )
    random.Random(seed).shuffle(train)
    return train, validation


def groups_over_shared_texts(examples: Sequence[Example]) -> list[str]:
    """For each row the least of all texts that it hangs together with over shared texts."""
    least: dict[str, str] = {}

    def find(text: str) -> str:
        while (above := least.setdefault(text, text)) != text:
            least[text] = least[above]
            text = above
        return text

    for row in examples:
        first, second = find(row.text), find(row.pair or row.text)
        least[max(first, second)] = min(first, second)
    return [find(row.text) for row in examples]


def check_classes(parts: dict[str, Iterable[int]], task: Task) -> None:
    """Raise `InvalidInput` where the labels of a part lack one of the task's classes."""
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

    Roots are random texts of at least `ROOT_WORDS` words; validation takes each root, every text
    within it and every text that holds `ROOT_WORDS` words of it in a row; training takes the rest.
    """
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    long = [i for i in order if len(examples[i].text.split()) >= ROOT_WORDS]
    roots = long[: min(sentences, max(1, len(long) // 10))]
    if not roots:
        raise InvalidInput(
            f"data: no text has {ROOT_WORDS} words to hold out; use the split 'paper'"
        )
    content = "\n".join(f" {words_of(examples[i])} " for i in roots)
    runs = {run for i in roots for run in word_runs(examples[i])}
    held = [
        f" {words_of(row)} " in content or not runs.isdisjoint(word_runs(row)) for row in examples
    ]
    validation = [row for row, out in zip(examples, held, strict=True) if out]
    train = [examples[i] for i in order if not held[i]]
    if not train:
        raise InvalidInput("data: too few examples to hold any out; give 100 at least")
    return train, validation


def words_of(row: Example) -> str:
    """The text with single spaces between its words."""
    return " ".join(row.text.split())


def word_runs(row: Example) -> list[str]:
    """Every `ROOT_WORDS` words in a row; none of a shorter text."""
    words = row.text.split()
    return [" ".join(words[i : i + ROOT_WORDS]) for i in range(len(words) - ROOT_WORDS + 1)]


def paper_split(examples: Sequence[Example], seed: int) -> Split:
    """Shuffle with ``seed`` and cut 80/10/10, as the paper does with each training file."""
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    tenth = len(order) // 10
    if tenth == 0:
        raise InvalidInput(f"data: {len(examples)} examples cannot be split 80/10/10; 10 at least")
    test, validation, train = order[:tenth], order[tenth : 2 * tenth], order[2 * tenth :]
    return Split(
        train=[examples[i] for i in train],
        validation=[examples[i] for i in validation],
        test=[examples[i] for i in test],
    )


def data_hash(examples: Sequence[Example]) -> str:
    """SHA-256 over the examples in order: names the data without carrying it."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps([example.text, example.pair, example.label]).encode())
    return digest.hexdigest()
