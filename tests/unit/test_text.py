"""Validation of texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidInput, TooLarge
from shared.text import check_inputs, check_text
from shared.wire import MAX_TEXT_CHARS, MAX_TEXTS


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        (" \t\n ", "is empty"),
        ("bad \ud800 one", "lone surrogate at character 5"),
        ("a\x00b", r"U\+0000 at character 2"),
        (7, "must be a string, not int"),
        (None, "must be a string, not NoneType"),
        (b"bytes", "must be a string, not bytes"),
    ],
)
def test_wrong_text_is_reported_in_one_sentence(text: object, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        check_text(text, "texts[2]")
    assert caught.value.message.startswith("texts[2]: ")
    assert caught.value.field == "texts[2]"
    assert caught.value.status == 422


def test_too_large_text_error_names_the_limit() -> None:
    with pytest.raises(TooLarge, match="at most 20,000") as caught:
        check_text("x" * 1_000_000)
    assert (caught.value.status, caught.value.limit) == (413, MAX_TEXT_CHARS)
    assert check_text("x" * MAX_TEXT_CHARS)


def test_too_many_texts_are_rejected() -> None:
    with pytest.raises(TooLarge, match="10,000 at once; at most 1,000"):
        check_inputs(["a"] * 10_000, None, False, "sst2")
    assert len(check_inputs(["a"] * MAX_TEXTS, None, False, "sst2")) == MAX_TEXTS


def test_pairs_must_match_the_task() -> None:
    with pytest.raises(InvalidInput, match="the task sst2 uses none"):
        check_inputs(["a"], ["b"], False, "sst2")
    with pytest.raises(InvalidInput, match="the task mrpc needs a second text"):
        check_inputs(["a"], None, True, "mrpc")
    with pytest.raises(InvalidInput, match="2 for 1 texts"):
        check_inputs(["a"], ["b", "c"], True, "mrpc")
    with pytest.raises(InvalidInput, match=r"^pairs\.0: is empty"):
        check_inputs(["a"], [""], True, "mrpc")
    assert check_inputs(["a"], ["b"], True, "mrpc") == [("a", "b")]


def test_empty_list_is_rejected() -> None:
    with pytest.raises(InvalidInput, match="texts: is empty"):
        check_inputs([], None, False, "sst2")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50))
def test_valid_text_is_unchanged(text: str) -> None:
    """Control characters, C0 and C1, are text."""
    if text.strip() and "\0" not in text:
        assert check_text(text) == text
