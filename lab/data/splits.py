"""Training, validation and reported part of the data."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.data.examples import Example, load_examples
from lab.data.sources import has_split, is_file
from lab.data.stratify import cut_by_class, groups_by_class
from lab.data.tasks import TASKS, Task
from shared.errors import InvalidInput

SPLITS = ("paper", "glue", "files", "grouped")
ROOT_WORDS = 8


@dataclass(frozen=True)
class Split:
    """The parts of the data: ``train`` for the exits, ``validation`` for α and pools, ``test`` to
    report."""

    train: list[Example]
    validation: list[Example]
    test: list[Example]


def load_split(source: str, task: Task, kind: str, seed: int, limit: int | None = None) -> Split:
    """Return the parts of the data.

    | kind | parts |
    |---|---|
    | ``paper`` | 80/10/10 of the training file, at random |
    | ``grouped`` | a part of the training file is held out to report, and a part of the rest is the
    validation part; rows that share a text are in one part (`hold_out`, `held_out_rows`) |
    | ``glue`` | the validation file is reported, as it is for GLUE; a tenth of the training file is
    held out as the validation part |
    | ``files`` | the files ``train``, ``validation`` and ``test``; without one of the last two, the
    other is reported, and the validation part is held out of the training file |

    One file is the training file. ``limit`` is the number of its rows that are used. Raises
    `InvalidInput` for data that cannot be split so.
    """
    if kind not in SPLITS:
        raise InvalidInput(f"split: {kind!r} is not known; choose one of {', '.join(SPLITS)}")
    if kind in ("glue", "files") and is_file(source):
        raise InvalidInput(
            f"split: {kind!r} needs a folder with a file for each part, and {source} is one file; "
            "choose grouped or paper"
        )
    examples = load_examples(source, task, "train")[:limit]
    has_test = kind == "files" and has_split(source, "test")
    if has_test and has_split(source, "validation"):
        validation, test = (_load_file(source, task, part) for part in ("validation", "test"))
        return Split(examples, validation, test)
    parts = split_examples(examples, task, kind, seed)
    if kind in ("glue", "files"):
        reported = _load_file(source, task, "test" if has_test else "validation")
        return Split(parts.train, parts.validation, reported)
    return parts


def _load_file(source: str, task: Task, part: str) -> list[Example]:
    """Return the examples of a file beside the training file.

    Raises `InvalidInput` that also names the splits for which the training file is enough.
    """
    try:
        return load_examples(source, task, part)
    except InvalidInput as error:
        raise InvalidInput(
            f"{error.message}; or give --split grouped, which reads the training file alone"
        ) from error


def load_validation_file(source: str, task: Task, kind: str) -> list[Example]:
    """Return the validation file of a run with the split ``kind``, to report.

    Raises `InvalidInput` if the run chose its epoch and α on that file, or if there is none.
    """
    if not has_validation_file(source, task):
        raise InvalidInput(f"on: {source} has no validation file; give --on test")
    if kind == "files" and has_split(source, "test"):
        raise InvalidInput(
            f"on: the validation part of this run is the validation file of {source}; "
            "give --on test"
        )
    return load_examples(source, task, "validation")


def has_validation_file(source: str, task: Task) -> bool:
    """Return whether ``source`` has a validation file; of hubs it is known for the GLUE tasks."""
    is_glue_hub = not Path(source).exists() and task.name in TASKS
    return is_glue_hub or has_split(source, "validation")


def split_examples(examples: Sequence[Example], task: Task, kind: str, seed: int) -> Split:
    """Return the parts of the training file; ``test`` is empty if a file of its own is reported."""
    if kind == "paper":
        return paper_split(examples, seed, task.labels)
    test: list[Example] = []
    rest = list(examples)
    if kind == "grouped":
        rest, test = hold_out(rest, task, seed, held_out_rows(len(rest)), keep=2)
        seed += 1
    rows = None if kind == "glue" else held_out_rows(len(rest))
    train, validation = hold_out(rest, task, seed, rows)
    return Split(train, validation, test)


def held_out_rows(rows: int) -> int:
    """Return how many of ``rows`` to hold out: a tenth, but up to 100 of small data a fifth."""
    return max(1, rows // 10, min(100, rows // 5))


def hold_out(
    examples: Sequence[Example], task: Task, seed: int, rows: int | None = None, keep: int = 1
) -> tuple[list[Example], list[Example]]:
    """Hold out texts as the task says: by texts (`hold_out_texts`) or by phrases.

    SST-2 holds out by phrases (`hold_out_sentences`): its training file consists of phrases cut
    from sentences, and a random split has parts of nearly every held-out sentence in its training
    part.
    """
    if task.hold_out == "phrases":
        return hold_out_sentences(examples, seed)
    return hold_out_texts(examples, seed, task.labels, rows, keep)


def hold_out_texts(
    examples: Sequence[Example],
    seed: int,
    labels: Sequence[str] = (),
    rows: int | None = None,
    keep: int = 1,
) -> tuple[list[Example], list[Example]]:
    """Hold out at most ``rows`` (default: a tenth) so that no text is in both parts.

    Rows that share a text, first or second of a pair, form a group (a question of QQP occurs in
    several pairs), and whole groups are held out. A group larger than what remains to hold out
    never is. If the held-out part would lack a class, or the other have it in fewer than ``keep``
    groups, groups are chosen by class (`groups_by_class`); ``labels`` are the names for its
    message.
    """
    groups = groups_over_shared_texts(examples)
    sizes = Counter(groups)
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    count = max(1, len(examples) // 10) if rows is None else rows
    remaining, held = count, set()
    for group in order:
        if sizes[group] <= remaining:
            held.add(group)
            remaining -= sizes[group]
    train, validation = _parts(examples, groups, held)
    if not train or not validation:
        raise InvalidInput(
            "data: too few different texts to hold any out; give at least 100, "
            "or use the split 'paper'"
        )
    classes = [row.label for row in examples]
    groups_left = Counter(
        label for label, group in {*zip(classes, groups, strict=True)} if group not in held
    )
    if _lacks_class(examples, validation) or any(groups_left[c] < keep for c in classes):
        held = groups_by_class(classes, groups, order, count, keep, labels)
        train, validation = _parts(examples, groups, held)
    random.Random(seed).shuffle(train)
    return train, validation


def _parts(
    examples: Sequence[Example], groups: Sequence[str], held: set[str]
) -> tuple[list[Example], list[Example]]:
    grouped = list(zip(examples, groups, strict=True))
    validation = [row for row, group in grouped if group in held]
    train = [row for row, group in grouped if group not in held]
    return train, validation


def _lacks_class(examples: Sequence[Example], *parts: Sequence[Example]) -> bool:
    classes = {row.label for row in examples}
    return any({row.label for row in part} != classes for part in parts)


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


def paper_split(examples: Sequence[Example], seed: int, labels: Sequence[str] = ()) -> Split:
    """Shuffle with ``seed`` and cut 80/10/10, like the paper.

    If a part would lack a class, each class is cut by itself (`cut_by_class`); ``labels`` are the
    names for its message.
    """
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    tenth = len(order) // 10
    if tenth == 0:
        raise InvalidInput(
            f"data: {len(examples)} examples cannot be split 80/10/10; give at least 10"
        )
    split = _split(examples, order[2 * tenth :], order[tenth : 2 * tenth], order[:tenth])
    if _lacks_class(examples, split.train, split.validation, split.test):
        return _split(examples, *cut_by_class([row.label for row in examples], order, labels))
    return split


def _split(
    examples: Sequence[Example], train: list[int], validation: list[int], test: list[int]
) -> Split:
    parts = ([examples[i] for i in rows] for rows in (train, validation, test))
    return Split(*parts)
