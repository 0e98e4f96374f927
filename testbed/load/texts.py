"""Texts to send: sentences written for dimee, or the lines of a file."""

from __future__ import annotations

import random
from pathlib import Path

from shared.errors import InvalidInput

_SENTENCES = (
    "a lovely film",
    "dreadful from the first scene to the last",
    "i would see it again tomorrow",
    "the acting is wooden and the jokes fall flat",
    "warm, clever and beautifully played",
    "two hours that i will not get back",
    "it is better than its trailer and worse than its poster",
    "not the triumph it thinks it is, though hardly a failure",
    "the food was cold, the waiter was not",
    "a slow start that pays off in the end",
    "i expected nothing and was still let down",
    "every scene has something to look at and nothing to think about",
    "she carries a thin script further than anybody could ask",
    "the second half forgives much of the first",
    "neither as funny as the book nor as dull as the play",
    "an honest, modest story, told without a wasted minute",
    "the kind of evening that makes one grateful for taxis",
    "it tries hard, and one can hear it trying",
    "if this is the best of the year, the year is in trouble",
    "small, strange and quite wonderful",
)
_CONJUNCTIONS = (", ", " and ", "; ", ", but ", ", although ")


def make_texts(count: int, seed: int) -> list[str]:
    """Return ``count`` texts of one to three sentences each, the same for the same seed."""
    rng = random.Random(seed)
    texts = []
    for _ in range(count):
        parts = rng.sample(_SENTENCES, rng.choice((1, 1, 1, 2, 2, 3)))
        texts.append(rng.choice(_CONJUNCTIONS).join(parts))
    return texts


def read_texts(path: Path) -> list[str]:
    """Return the non-empty lines of a file; raises `InvalidInput`."""
    try:
        texts = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"texts: {path} cannot be read ({error})") from None
    if not texts:
        raise InvalidInput(f"texts: {path} has no text; write one text per line")
    return texts
