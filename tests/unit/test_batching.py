"""Batch selection: the batch around the most urgent text that costs least per token."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.inference.batch_selection import best_batch
from shared.inference.layer_batcher import LAYER_OVERHEAD_TOKENS

NO_LIMIT = 2**31


@given(
    lengths=st.lists(st.integers(3, 256), min_size=1, max_size=64),
    due=st.integers(0, 63),
    max_rows=st.integers(1, 8),
    max_padded_tokens=st.integers(1, 2048),
)
def test_no_other_batch_is_cheaper(
    lengths: list[int], due: int, max_rows: int, max_padded_tokens: int
) -> None:
    lengths.sort()
    due %= len(lengths)
    chosen = best_batch(lengths, due, max_rows, max_padded_tokens)
    assert due in chosen
    assert len(chosen) <= max_rows

    def padded(rows: range) -> int:
        return lengths[rows.stop - 1] * len(rows)

    def cost(rows: range) -> float:
        return (LAYER_OVERHEAD_TOKENS + padded(rows)) / sum(lengths[i] for i in rows)

    assert len(chosen) == 1 or padded(chosen) <= max_padded_tokens
    windows = [
        range(start, stop)
        for start in range(due + 1)
        for stop in range(due + 1, len(lengths) + 1)
        if stop - start <= max_rows and padded(range(start, stop)) <= max_padded_tokens
    ]
    assert all(cost(chosen) <= cost(window) for window in windows)


def test_texts_of_equal_length_fill_a_batch() -> None:
    assert best_batch([20] * 30, 29, 8, NO_LIMIT) == range(22, 30)


def test_long_text_is_not_batched_with_short_ones() -> None:
    assert best_batch([10, 10, 200], 2, 8, NO_LIMIT) == range(2, 3)
    assert best_batch([10, 10, 200], 0, 8, NO_LIMIT) == range(2)


def test_urgent_text_is_chosen_even_above_the_token_limit() -> None:
    assert best_batch([10, 20, 30], 1, 8, 1) == range(1, 2)
