"""Sentences made for load tests, and the order in which texts are sent."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.domain import InputText
from shared.wire import BundleDescription
from testbed.texts import texts_for

MADE_TEXTS = 300
"""Sentences that are made for a bundle of single texts without samples."""

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


def in_passes(texts: Sequence[InputText], count: int, rng: random.Random) -> list[InputText]:
    """Return ``count`` texts: all of them in a random order, then in another one, and so on."""
    chosen: list[InputText] = []
    while len(chosen) < count:
        chosen += rng.sample(texts, len(texts))
    return chosen[:count]


def texts_to_send(
    bundle: BundleDescription, file: Path | None, options: Mapping[str, Any], seed: int
) -> list[InputText]:
    """Return the texts of a load test: those of `texts_for`, but many more made sentences."""
    if file is None and not bundle.samples and not bundle.pairs:
        return [InputText(text) for text in make_texts(MADE_TEXTS, seed)]
    return texts_for(bundle, file, options)


def digest_of(texts: Sequence[InputText]) -> str:
    """Return the SHA-256 of the texts in their order, by which reports are compared."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(json.dumps([text.text, text.pair]).encode())
    return digest.hexdigest()
