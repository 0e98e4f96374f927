"""Choice of waiting texts of similar length that form a batch with the most urgent one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from shared.inference.buckets import ROWS, bucket_of, most_rows
from shared.inference.layer_batcher import LAYER_OVERHEAD_TOKENS


def best_batch(lengths: Sequence[int], due: int, max_rows: int, max_padded_tokens: int) -> range:
    """Return the range of ``lengths`` around index ``due`` that costs least per token.

    ``lengths`` are sorted, in tokens. A batch costs `LAYER_OVERHEAD_TOKENS` plus its padded tokens,
    which are its longest length times its rows. It has at most ``max_rows`` rows and
    ``max_padded_tokens`` padded tokens, but always contains ``due``.
    """
    best, least = range(due, due + 1), (LAYER_OVERHEAD_TOKENS + lengths[due]) / lengths[due]
    for start in range(due, max(due - max_rows, -1), -1):
        tokens = sum(lengths[start:due])
        for stop in range(due + 1, min(len(lengths), start + max_rows) + 1):
            width = lengths[stop - 1]
            padded = width * (stop - start)
            tokens += width
            if padded > max_padded_tokens:
                break
            cost = (LAYER_OVERHEAD_TOKENS + padded) / tokens
            if cost < least:
                best, least = range(start, stop), cost
    return best


def bucketed_batch(
    lengths: Sequence[int],
    due: int,
    max_rows: int,
    max_padded_tokens: int,
    widths: Sequence[int],
) -> range:
    """Return the range of ``lengths`` around index ``due`` for a batch on a GPU.

    As `best_batch`, but a batch has the shape of a bucket (`shared.inference.buckets`): it takes
    the lengths of the bucket of ``due``, as many as the limits allow. Shorter texts fill the
    bucket's rows that are left, which costs nothing.
    """
    width = bucket_of(lengths[due], widths)
    narrower = max((bucket for bucket in widths if bucket < width), default=0)
    begin, end = bisect_right(lengths, narrower), bisect_right(lengths, width)
    rows = min(end - begin, most_rows(width, max_rows, max_padded_tokens))
    begin = max(begin, min(due, end - rows))
    rows = min(bucket_of(rows, ROWS), max_rows, max(1, max_padded_tokens // width))
    end = min(end, begin + rows)
    return range(max(0, end - rows), end)
