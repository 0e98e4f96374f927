"""Sentences of a small vocabulary with a positive or negative word each, as data for training."""

from __future__ import annotations

import random

GOOD = ("fine", "warm", "bright", "lovely", "great")
BAD = ("dull", "cold", "grim", "ugly", "bad")
NEUTRAL = ("a", "the", "film", "book", "and", "very", "was", "with", "day", "night")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_rows(count: int, seed: int) -> list[dict[str, object]]:
    """Return random examples with the columns ``sentence`` and ``label``."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        label = rng.randint(0, 1)
        words = [rng.choice(NEUTRAL) for _ in range(rng.randint(2, 14))]
        words.insert(rng.randint(0, len(words)), rng.choice(GOOD if label else BAD))
        rows.append({"sentence": " ".join(words), "label": label})
    return rows
