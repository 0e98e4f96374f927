"""Splits of the data: hold-out, 80/10/10, classes in every part."""

from __future__ import annotations

import pytest

from lab.data.examples import Example
from lab.data.splits import hold_out_sentences, hold_out_texts, paper_split
from shared.errors import InvalidInput


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
