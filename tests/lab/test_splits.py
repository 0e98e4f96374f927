"""Splits of the data: hold-out, 80/10/10, classes in every part."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.data.examples import Example, load_examples
from lab.data.splits import (
    Split,
    held_out_rows,
    hold_out_sentences,
    hold_out_texts,
    load_split,
    load_validation_file,
    paper_split,
    split_examples,
    word_runs,
)
from lab.data.task_file import resolve_task
from lab.data.tasks import Task
from shared.errors import InvalidInput
from tests.support.tiny_data import write_table


def test_hold_out_puts_no_premise_in_both_parts() -> None:
    rows = [Example(f"premise {i // 3}", f"hypothesis {i}", i % 3) for i in range(90)]
    train_rows, validation = hold_out_texts(rows, seed=1)
    assert {row.text for row in train_rows}.isdisjoint(row.text for row in validation)
    assert len(train_rows) + len(validation) == 90
    assert len(validation) == 9


def test_hold_out_puts_no_question_in_both_parts() -> None:
    """As in QQP: each question is the second text of one row and the first of the next."""
    rows = [Example(f"q {i}", f"q {i + 1 if i % 4 < 3 else i - 3}", i % 2) for i in range(200)]
    train_rows, validation = hold_out_texts(rows, seed=1)
    parts = [{text for r in part for text in (r.text, r.pair)} for part in (train_rows, validation)]
    assert parts[0].isdisjoint(parts[1])
    assert len(validation) == 20
    assert len(train_rows) == 180
    assert hold_out_texts(rows, seed=1) == (train_rows, validation)
    assert hold_out_texts(rows, seed=2)[1] != validation


def test_group_larger_than_a_tenth_is_not_held_out() -> None:
    """One premise is in half of the rows."""
    rows = [Example("everywhere" if i < 50 else f"p {i}", f"h {i}", i % 2) for i in range(100)]
    for seed in range(5):
        _, validation = hold_out_texts(rows, seed)
        assert len(validation) == 10
        assert "everywhere" not in {row.text for row in validation}
    with pytest.raises(InvalidInput, match="use the split 'paper'"):
        hold_out_texts(rows[:50], seed=1)


def test_paper_split_is_80_10_10_and_seeded() -> None:
    rows = [Example(f"text {i}", None, i % 2) for i in range(105)]
    split = paper_split(rows, seed=1)
    assert [len(split.train), len(split.validation), len(split.test)] == [85, 10, 10]
    assert sorted(split.train + split.validation + split.test, key=rows.index) == rows
    assert paper_split(rows, seed=1) == split != paper_split(rows, seed=2)


def test_phrases_of_a_held_out_sentence_are_not_in_training() -> None:
    sentence = "one two three four five six seven eight nine ten"
    rows = [Example(f"{sentence} {i}", None, 0) for i in range(3)]
    rows += [Example("three four five", None, 1), Example("quite another text", None, 1)]
    train, validation = hold_out_sentences(rows, seed=0, sentences=1)
    assert train == [Example("quite another text", None, 1)]
    assert len(validation) == 4


def topics(counts: dict[str, int]) -> tuple[list[Example], tuple[str, ...]]:
    names = tuple(sorted(counts))
    rows = [
        Example(f"{name} {number}", None, names.index(name))
        for name in names
        for number in range(counts[name])
    ]
    return rows, names


def task_of(names: tuple[str, ...], hold_out: str = "texts") -> Task:
    return Task("topics", "text", None, names, hold_out=hold_out)


@pytest.mark.parametrize("kind", ["paper", "grouped", "glue"])
def test_rare_class_is_in_every_part(kind: str) -> None:
    """A random split of 400 texts would put no text of the rare class into some part."""
    rows, names = topics({"common": 240, "other": 157, "rare": 3})
    for seed in range(20):
        split = split_examples(rows, task_of(names), kind, seed)
        parts = [split.train, split.validation, *([split.test] if split.test else [])]
        assert all({row.label for row in part} == {0, 1, 2} for part in parts)
        assert sorted(row.text for part in parts for row in part) == sorted(r.text for r in rows)
        assert split == split_examples(rows, task_of(names), kind, seed)
        held = 40 if kind != "grouped" else 80
        assert all(abs(len(part) - held) <= held // 4 for part in parts[1:])


def test_split_of_common_classes_is_the_random_one() -> None:
    rows, names = topics({"a": 200, "b": 200})
    order = list(range(400))
    random.Random(1).shuffle(order)
    assert paper_split(rows, 1, names).test == [rows[i] for i in order[:40]]


@pytest.mark.parametrize(
    ("kind", "count", "message"),
    [
        ("paper", 2, "the class 'rare' has 2 examples, and each of the three"),
        ("paper", 1, "the class 'rare' has 1 example, and each of the three parts"),
        ("grouped", 2, "the class 'rare' has 2 examples, too few for each part"),
        ("glue", 1, "the class 'rare' has 1 example, too few for each part"),
    ],
)
def test_class_that_is_too_small_is_named(kind: str, count: int, message: str) -> None:
    rows, names = topics({"common": 200, "rare": count})
    for seed in range(9):
        with pytest.raises(InvalidInput, match=message):
            split_examples(rows, task_of(names), kind, seed)


@pytest.mark.parametrize("kind", ["paper", "grouped"])
def test_message_counts_the_classes_that_are_too_small(kind: str) -> None:
    rows, names = topics({"common": 200, "rare": 1, "seldom": 2, "other": 30})
    message = r"'rare' has 1 example.* \(2 of the 4 classes have fewer than 3 examples\)$"
    with pytest.raises(InvalidInput, match=message):
        split_examples(rows, task_of(names), kind, 1)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=40, max_size=120),
    st.integers(0, 5),
)
def test_grouped_parts_share_no_text(cells: list[tuple[int, int]], seed: int) -> None:
    rows = [Example(f"text {text}", None, label) for text, label in cells]
    try:
        split = split_examples(rows, task_of(("a", "b", "c")), "grouped", seed)
    except InvalidInput:  # too few different texts of a class
        return
    parts = (split.train, split.validation, split.test)
    texts = [{row.text for row in part} for part in parts]
    assert len(set.union(*texts)) == sum(map(len, texts))
    assert sum(map(len, parts)) == len(rows)
    classes = {row.label for row in rows}
    assert all({row.label for row in part} == classes for part in parts)


def test_any_data_may_be_held_out_by_phrases() -> None:
    rows = [
        Example(" ".join(f"w{number // 2 * 7 + i}" for i in range(9)) + end, None, number % 2)
        for number in range(200)
        for end in ("", " and more")
    ]
    split = split_examples(rows, task_of(("a", "b"), "phrases"), "grouped", 3)
    seen = {run for row in split.train for run in word_runs(row)}
    for part in (split.validation, split.test):
        assert part
        assert all(seen.isdisjoint(word_runs(row)) for row in part)


def test_held_out_rows_are_a_tenth_but_more_of_small_data() -> None:
    assert [held_out_rows(rows) for rows in (3, 50, 400, 600, 1_000, 5_000)] == [
        1, 10, 80, 100, 100, 500,
    ]  # fmt: skip


def test_files_of_a_folder_are_the_parts(tmp_path: Path) -> None:
    task = task_of(("a", "b"))
    parts = {}
    for name, count in (("train", 60), ("validation", 20), ("test", 30)):
        rows = [{"text": f"{name} {n}", "label": "ab"[n % 2]} for n in range(count)]
        write_table(tmp_path / f"{name}.csv", rows)
        parts[name] = load_examples(str(tmp_path), task, name)
    folder = str(tmp_path)
    assert load_split(folder, task, "files", 1) == Split(*parts.values())
    with pytest.raises(InvalidInput, match=r"the validation part .* is the validation file of"):
        load_validation_file(folder, task, "files")
    (tmp_path / "test.csv").unlink()
    for kind, held in (("files", 12), ("glue", 6)):
        split = load_split(folder, task, kind, 1)
        assert split.test == parts["validation"]
        assert len(split.validation) == held
        assert {*split.train, *split.validation} == {*parts["train"]}
        assert load_validation_file(folder, task, kind) == parts["validation"]
    (tmp_path / "validation.csv").rename(tmp_path / "test.csv")
    split = load_split(folder, task, "files", 1)
    assert split.test == parts["validation"]
    assert len(split.validation) == 12
    assert {*split.train, *split.validation} == {*parts["train"]}
    with pytest.raises(InvalidInput, match="has no validation file; give --on test"):
        load_validation_file(folder, task, "files")
    assert resolve_task(folder, {"text_field": "text"})[1] == "files"
    (tmp_path / "test.csv").write_text("text\na text without a label\n")
    with pytest.raises(InvalidInput, match=r"no column 'label'.*or give --split grouped"):
        load_split(folder, task, "files", 1)
    assert len(load_split(folder, task, "grouped", 1).test) == 12
    file = str(tmp_path / "train.csv")
    for kind in ("files", "glue"):
        with pytest.raises(InvalidInput, match=f"'{kind}' needs a folder .*choose grouped"):
            load_split(file, task, kind, 1)
    assert len(load_split(file, task, "paper", 1, limit=50).test) == 5
    with pytest.raises(InvalidInput, match="has no validation file; give --on test"):
        load_validation_file(file, task, "paper")
