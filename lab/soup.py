"""The weighted mean of two runs' weights: a 'model soup' (Wortsman et al. 2022)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.model import MultiExitClassifier, load_model, save_model
from lab.predict import accuracy_by_exit, predict
from lab.run import Run
from shared.errors import InvalidInput

SAME = ("task", "encoder", "pooling", "split", "seed", "limit", "data_hash", "max_tokens")
SHARES = tuple(share / 10 for share in range(10, -1, -1))


def mix(first: Run, second: Run, share: float, out: Path, data: str | None) -> dict[str, Any]:
    """Write the run whose weights are ``share`` of ``first``'s and the rest of ``second``'s.

    Both must come from the same encoder and the same split: only then does the held-out part say
    anything of their mean. Returns its facts, with accuracy by exit on the validation part.
    """
    model = _mixed(first, second, share)
    facts = first.facts | {
        "mixed": {"share": share, "with": second.facts},
        "validation_accuracy_by_exit": _accuracy(model, first, data),
    }
    save_model(model, out / "model", facts)
    shutil.copy(first.tokenizer_file, out / "model" / first.tokenizer_file.name)
    return facts


def search(
    first: Run, second: Run, data: str | None, say: Callable[[str], object] = print
) -> float:
    """The share of 0, 0.1 … 1 with the best full depth on the validation part; of equals the
    one nearest to one run alone that comes first."""
    found = []
    for share in SHARES:
        accuracy = _accuracy(_mixed(first, second, share), first, data)
        say(f"share {share:.1f}: {accuracy[-1]:.2f} at full depth on validation")
        found.append((accuracy[-1], share))
    return max(found, key=lambda pair: pair[0])[1]


def _mixed(first: Run, second: Run, share: float) -> MultiExitClassifier:
    for name in SAME:
        if first.facts.get(name) != second.facts.get(name):
            raise InvalidInput(
                f"runs: {name} differs ({first.facts.get(name)!r}, {second.facts.get(name)!r}); "
                "only runs of one encoder, split and seed can be mixed"
            )
    model, _ = load_model(first.folder / "model")
    one, other = first.model.state_dict(), second.model.state_dict()
    model.load_state_dict(
        {
            name: share * value + (1 - share) * other[name] if value.is_floating_point() else value
            for name, value in one.items()
        }
    )
    return model


def _accuracy(model: MultiExitClassifier, run: Run, data: str | None) -> list[float]:
    validation = run.split(data).validation
    return accuracy_by_exit(predict(model, run.tokenizer, validation, run.facts["max_tokens"]))
