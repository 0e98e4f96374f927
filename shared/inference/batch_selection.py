"""Which of the texts that wait go together: those of similar length, around the one that is due."""

from __future__ import annotations

from collections.abc import Sequence

from shared.inference.layer_batcher import WORTH_TOKENS


def best_batch(lengths: Sequence[int], due: int, most: int, room: int) -> range:
    """The neighbours of ``lengths[due]``, itself included, that cost least a token.

    ``lengths`` are in order, in tokens. A run of a layer costs what `WORTH_TOKENS` tokens cost, and
    then a token for each of the padded batch: width × rows. At most ``most`` rows and ``room``
    padded tokens, but never less than the due row alone.
    """
    best, least = range(due, due + 1), (WORTH_TOKENS + lengths[due]) / lengths[due]
    for start in range(due, max(due - most, -1), -1):
        tokens = sum(lengths[start:due])
        for stop in range(due + 1, min(len(lengths), start + most) + 1):
            width = lengths[stop - 1]
            padded = width * (stop - start)
            tokens += width
            if padded > room:
                break
            cost = (WORTH_TOKENS + padded) / tokens
            if cost < least:
                best, least = range(start, stop), cost
    return best
