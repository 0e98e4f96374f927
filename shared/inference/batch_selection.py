"""Choice of waiting texts of similar length that form a batch with the most urgent one."""

from __future__ import annotations

from collections.abc import Sequence

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
