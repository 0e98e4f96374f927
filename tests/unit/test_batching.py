"""Who goes together: the cheapest batch a token around the text that is due."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.inference.batch_selection import best_batch
from shared.inference.layer_batcher import WORTH_TOKENS

NO_BOUND = 2**31


@given(
    lengths=st.lists(st.integers(3, 256), min_size=1, max_size=64),
    due=st.integers(0, 63),
    most=st.integers(1, 8),
    room=st.integers(1, 2048),
)
def test_no_other_batch_is_cheaper(lengths: list[int], due: int, most: int, room: int) -> None:
    lengths.sort()
    due %= len(lengths)
    chosen = best_batch(lengths, due, most, room)
    assert due in chosen
    assert len(chosen) <= most

    def padded(rows: range) -> int:
        return lengths[rows.stop - 1] * len(rows)

    def cost(rows: range) -> float:
        return (WORTH_TOKENS + padded(rows)) / sum(lengths[i] for i in rows)

    assert len(chosen) == 1 or padded(chosen) <= room
    windows = [
        range(start, stop)
        for start in range(due + 1)
        for stop in range(due + 1, len(lengths) + 1)
        if stop - start <= most and padded(range(start, stop)) <= room
    ]
    assert all(cost(chosen) <= cost(window) for window in windows)


def test_equals_fill_a_batch() -> None:
    assert best_batch([20] * 30, 29, 8, NO_BOUND) == range(22, 30)


def test_a_long_text_goes_alone() -> None:
    assert best_batch([10, 10, 200], 2, 8, NO_BOUND) == range(2, 3)
    assert best_batch([10, 10, 200], 0, 8, NO_BOUND) == range(2)


def test_the_due_text_goes_even_without_room() -> None:
    assert best_batch([10, 20, 30], 1, 8, 1) == range(1, 2)
