"""Batches of similar length, and the random masks of their tokens.

Shape suffixes: B rows, T tokens.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from lab.data.examples import Example
from lab.train.settings import TrainSettings


def token_ids(tokenizer: Any, examples: Sequence[Example], max_tokens: int) -> list[list[int]]:
    pairs = [row.pair for row in examples] if examples[0].pair is not None else None
    encoded = tokenizer(
        [row.text for row in examples], pairs, truncation=True, max_length=max_tokens
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


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


def masked(ids_BT: torch.Tensor, tokenizer: Any, share: float) -> torch.Tensor:
    """Return the ids with a random ``share`` masked; special tokens and padding stay."""
    special_BT = torch.isin(ids_BT, torch.tensor(tokenizer.all_special_ids))
    masked_BT = (torch.rand(ids_BT.shape) < share) & ~special_BT
    return ids_BT.masked_fill(masked_BT, tokenizer.mask_token_id)
