"""Made-up sentences about sport, cooking and weather, as a user's own data: a CSV of three classes.

``python -m tests.support.topics FILE`` writes the CSV.
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Sequence
from pathlib import Path

SPORT, COOKING, WEATHER = "sport", "cooking", "météo"
TOPICS = (SPORT, COOKING, WEATHER)
"""The labels; one is not ASCII."""

_SENTENCES = {
    SPORT: (
        "The {a} {b} the {c} {d}.",
        "After {d}, our {a} {b} the {c}, and the fans cheered.",
        '"We {b} that {c} together", said the {a} {d}.',
        "Few expected the {a} to reach the {c} {d}.",
    ),
    COOKING: (
        "{b} the {a} {d} and add the {c}.",
        "For this recipe, {b} the {c} with the {a} {d}.",
        "My grandmother would always {b} the {a} {d}, then serve it with {c}.",
        "The {a} tastes best if you {b} it {d}.",
    ),
    WEATHER: (
        "{a} {b} over the {c} {d}.",
        "Expect {a} near the {c} {d}; temperatures stay low.",
        "The forecast says that {a} {b} across the {c} {d}.",
        "{d}, {a} {b} again, so the {c} will stay wet.",
    ),
}
_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    SPORT: {
        "a": ("goalkeeper", "striker", "coach", "captain", "team", "sprinter", "referee"),
        "b": ("won", "lost", "played", "finished", "missed", "celebrated"),
        "c": ("match", "final", "penalty", "tournament", "marathon", "league", "trophy"),
        "d": ("in the second half", "in extra time", "last season", "at the stadium"),
    },
    COOKING: {
        "a": ("onions", "dough", "chicken", "stew", "carrots", "sauce", "rice"),
        "b": ("fry", "bake", "chop", "stir", "roast", "simmer", "season"),
        "c": ("garlic", "butter", "cheese", "pepper", "flour", "olive oil", "parsley"),
        "d": ("in a hot pan", "for ten minutes", "in the oven", "with a pinch of salt"),
    },
    WEATHER: {
        "a": ("rain", "heavy snow", "thick fog", "a thunderstorm", "strong wind", "hail", "frost"),
        "b": ("moves", "spreads", "arrives", "clears", "returns", "gathers"),
        "c": ("coast", "mountains", "valley", "north", "islands", "plains", "east"),
        "d": ("this afternoon", "on Sunday", "before dawn", "during the night", "by the weekend"),
    },
}


def make_topics(count: int, seed: int = 1) -> list[tuple[str, str]]:
    """Return ``count`` different texts with labels, a third of each topic, in random order."""
    rng = random.Random(seed)
    rows: dict[str, str] = {}
    while len(rows) < count:
        topic = TOPICS[len(rows) % len(TOPICS)]
        words = {place: rng.choice(choices) for place, choices in _WORDS[topic].items()}
        text = rng.choice(_SENTENCES[topic]).format(**words)
        rows.setdefault(text[0].upper() + text[1:], topic)
    shuffled = list(rows.items())
    rng.shuffle(shuffled)
    return shuffled


def write_csv(
    file: Path, rows: Sequence[tuple[str, str]], header: tuple[str, str] = ("text", "label")
) -> Path:
    """Write texts and labels as a CSV with a header; returns ``file``."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as content:
        writer = csv.writer(content)
        writer.writerow(header)
        writer.writerows(rows)
    return file


def write_topics(file: Path, count: int = 400, seed: int = 1) -> Path:
    """Write `make_topics` as a CSV with the columns ``text`` and ``label``; returns ``file``."""
    return write_csv(file, make_topics(count, seed))


if __name__ == "__main__":
    write_topics(Path(sys.argv[1]))
