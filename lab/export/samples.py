"""Sample texts of a bundle, chosen from its data."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lab.data.examples import Example
from shared.domain import InputText
from shared.errors import InvalidInput
from shared.text import check_text

MAX_SAMPLES = 60
MAX_CHARS = 1_000
"""Longest sample; longer texts are not chosen, since people read the samples."""


def choose_samples(
    examples: Sequence[Example],
    labels: Sequence[str],
    confidence_NE: NDArray[np.float32],
    seed: int,
) -> list[InputText]:
    """Return at most `MAX_SAMPLES` different examples at random, from easy to hard.

    The labels take turns, so that as many as possible are covered. An example is easy if its mean
    confidence over the exits is large. Long texts, and texts that a client must not send, are left
    out.
    """
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    numbers_by_label: dict[int, list[int]] = {}
    chosen_texts: set[tuple[str, str | None]] = set()
    for number in order:
        example = examples[number]
        if (example.text, example.pair) not in chosen_texts and _is_sendable(example):
            chosen_texts.add((example.text, example.pair))
            numbers_by_label.setdefault(example.label, []).append(number)
    chosen: list[int] = []
    while numbers_by_label and len(chosen) < MAX_SAMPLES:
        for label in [*numbers_by_label][: MAX_SAMPLES - len(chosen)]:
            chosen.append(numbers_by_label[label].pop())
            if not numbers_by_label[label]:
                del numbers_by_label[label]
    mean_N = confidence_NE.mean(axis=1)
    chosen.sort(key=lambda number: -mean_N[number])
    return [
        InputText(examples[number].text, examples[number].pair, labels[examples[number].label])
        for number in chosen
    ]


def _is_sendable(example: Example) -> bool:
    texts = [example.text] if example.pair is None else [example.text, example.pair]
    try:
        for text in texts:
            check_text(text)
    except InvalidInput:
        return False
    return all(len(text) <= MAX_CHARS for text in texts)


def write_samples(samples: Sequence[InputText], file: Path) -> None:
    """Write JSON lines with the fields ``text``, ``pair`` (of pairs only) and ``label``."""
    with file.open("w", encoding="utf-8") as lines:
        for sample in samples:
            pair = {} if sample.pair is None else {"pair": sample.pair}
            row = {"text": sample.text, **pair, "label": sample.label}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
