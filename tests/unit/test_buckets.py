"""Buckets of a GPU's batches, and the choice of waiting texts that fill one."""

from __future__ import annotations

import numpy as np

from shared.inference.batch_selection import bucketed_batch
from shared.inference.buckets import ROWS, bucket_of, most_rows, width_buckets

WIDTHS = width_buckets(256)


def test_widths_double_up_to_the_limit_of_the_bundle() -> None:
    assert WIDTHS == (32, 64, 128, 256)
    assert width_buckets(48) == (32, 48)
    assert width_buckets(8) == (8,)
    assert width_buckets(300) == (32, 64, 128, 256, 300)


def test_size_is_rounded_up_to_a_bucket() -> None:
    assert [bucket_of(size, ROWS) for size in (1, 2, 3, 8, 9, 512, 600)] == [
        1, 2, 4, 8, 16, 512, 512,
    ]  # fmt: skip


def test_rows_are_limited_by_tokens() -> None:
    assert most_rows(32, 512, 65_536) == 512
    assert most_rows(256, 512, 65_536) == 256
    assert most_rows(300, 512, 65_536) == 128
    assert most_rows(256, 512, 100) == 1


def test_batch_has_the_texts_of_one_bucket_and_shorter_ones_in_the_rows_left() -> None:
    lengths = [5, 6, 7, 8, 9, 40, 41, 42, 43, 44, 100]
    assert bucketed_batch(lengths, 6, 512, 65_536, WIDTHS) == range(2, 10)  # 5 of 64, 3 shorter
    assert bucketed_batch(lengths, 10, 512, 65_536, WIDTHS) == range(10, 11)
    assert bucketed_batch(lengths, 0, 512, 65_536, WIDTHS) == range(5)
    assert bucketed_batch(lengths, 9, 2, 65_536, WIDTHS) == range(8, 10)


def test_batch_of_a_tight_deadline_is_small() -> None:
    assert len(bucketed_batch([20] * 100, 50, 512, 8 * 32, WIDTHS)) == 8
    assert bucketed_batch([20] * 100, 50, 512, 0, WIDTHS) == range(50, 51)


def test_batch_holds_the_due_text_and_keeps_the_limits() -> None:
    rng = np.random.default_rng(5)
    for _ in range(300):
        lengths = sorted(rng.integers(2, 257, rng.integers(1, 200)).tolist())
        due, max_rows = int(rng.integers(len(lengths))), int(rng.integers(1, 513))
        room = int(rng.integers(0, 50_000))
        batch = bucketed_batch(lengths, due, max_rows, room, WIDTHS)
        assert due in batch
        assert 0 <= batch.start < batch.stop <= len(lengths)
        assert len(batch) <= max_rows
        width = bucket_of(lengths[due], WIDTHS)
        assert lengths[batch[-1]] <= width
        assert len(batch) == 1 or len(batch) * width <= room
