"""Made-up sentences of two classes, and the words that they consist of."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path

GOOD = ("fine", "warm", "bright", "lovely", "great")
BAD = ("dull", "cold", "grim", "ugly", "bad")
NEUTRAL = ("a", "the", "film", "book", "and", "very", "was", "with", "day", "night")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_rows(count: int, seed: int) -> list[dict[str, object]]:
    """Return sentences with one good (label 1) or bad (label 0) word among neutral ones."""
    rng = random.Random(seed)
    rows: list[dict[str, object]] = []
    for _ in range(count):
        label = rng.randint(0, 1)
        words = [rng.choice(NEUTRAL) for _ in range(rng.randint(2, 14))]
        words.insert(rng.randint(0, len(words)), rng.choice(GOOD if label else BAD))
        rows.append({"sentence": " ".join(words), "label": label})
    return rows


def make_pair_rows(count: int, seed: int) -> list[dict[str, object]]:
    """Return pairs that are equivalent if both are good or both bad; a third are equal texts."""
    rng = random.Random(seed)
    rows: list[dict[str, object]] = []
    for number in range(count):
        kinds = [rng.choice((GOOD, BAD)) for _ in range(2)]
        texts = []
        for kind in kinds:
            words = [rng.choice(NEUTRAL) for _ in range(rng.randint(2, 9))]
            texts.append(" ".join([*words, rng.choice(kind)]))
        if number % 3 == 0:
            texts[1], kinds[1] = texts[0], kinds[0]
        rows.append(
            {"sentence1": texts[0], "sentence2": texts[1], "label": int(kinds[0] is kinds[1])}
        )
    return rows


TOPICS = ("política", "スポーツ", "🎬 cine y más")
"""Labels of `make_topic_rows`, in the order that a run gives them."""


def make_topic_rows(count: int, seed: int) -> list[dict[str, object]]:
    """Return sentences of three topics: with a good word, with a bad word, or with neither."""
    rng = random.Random(seed)
    rows: list[dict[str, object]] = []
    for number in range(count):
        topic = rng.randrange(len(TOPICS))
        words = [rng.choice(NEUTRAL) for _ in range(rng.randint(3, 12))]
        if topic < 2:
            words.insert(rng.randint(0, len(words)), rng.choice((GOOD, BAD)[topic]))
        rows.append({"id": number, "text": " ".join(words), "topic": TOPICS[topic]})
    return rows


def write_table(file: Path, rows: Sequence[dict[str, object]], delimiter: str = ",") -> Path:
    """Write CSV or TSV and return the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, [*rows[0]], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return file


def write_rows(file: Path, rows: Sequence[dict[str, object]]) -> Path:
    """Write JSON lines and return the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
