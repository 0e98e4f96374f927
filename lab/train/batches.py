"""Batches of similar length, and the random masks of their tokens.

Shape suffixes: B rows, T tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lab.train.settings import TrainSettings


def make_batches(lengths: Sequence[int], settings: TrainSettings) -> Iterator[list[int]]:
    """Yield batches of similar length, in an order that depends on seed and epoch only."""
    size = settings.batch_size
    for epoch in range(settings.epochs):
        rng = random.Random(settings.seed * 1000 + epoch)
        order = list(range(len(lengths)))
        rng.shuffle(order)
        batches: list[list[int]] = []
        for start in range(0, len(order), size * 50):
            window = sorted(order[start : start + size * 50], key=lengths.__getitem__)
            batches += [window[i : i + size] for i in range(0, len(window), size)]
        rng.shuffle(batches)
        yield from batches


def mask_tokens(ids_BT: Tensor, content_BT: Tensor, share: float, mask_id: int) -> Tensor:
    """Return the ids with a random ``share`` of the content masked; all other tokens stay.

    The random numbers are the CPU's, so that they are equal on every device.
    """
    masked_BT = (torch.rand(ids_BT.shape) < share) & content_BT
    return ids_BT.masked_fill(masked_BT, mask_id)
