"""Weighted mean of the weights of runs (Wortsman et al. 2022)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lab.models.model import MultiExitClassifier, load_model, save_model
from lab.models.predict import accuracy_by_exit, predict
from lab.models.run import Run
from lab.train.settings import with_defaults
from shared.errors import InvalidInput

EQUAL_FACTS = ("task", "encoder", "pooling", "split", "seed", "limit", "max_tokens", "head_hidden",
               "text_field", "pair_field", "label_field", "labels", "hold_out",
               "from_classifier")  # fmt: skip
SHARES = tuple(share / 10 for share in range(10, -1, -1))


def average_runs(
    runs: Sequence[Run], shares: Sequence[float], out: Path, data: str | None
) -> dict[str, Any]:
    """Write the mean of the weights of ``runs``, weighted by ``shares`` (sum 1), as a new run.

    All runs must have the same encoder and the same split; otherwise the validation part of one
    would contain training texts of another. Returns the facts of the new run, with accuracy by exit
    on the validation part.
    """
    model = _average(runs, shares)
    first, *others = runs
    facts = first.facts | {
        "mixed": {"shares": list(shares), "with": [run.facts for run in others]},
        "validation_accuracy_by_exit": _accuracy(model, first, data),
    }
    save_model(model, out / "model", facts)
    shutil.copy(first.tokenizer_file, out / "model" / first.tokenizer_file.name)
    return facts


def search_share(
    first: Run, second: Run, data: str | None, echo: Callable[[str], object] = print
) -> float:
    """Return the share of ``first`` with the best accuracy at full depth on the validation part.

    Candidates are 1, 0.9 … 0; the first of equal ones wins.
    """
    scored = []
    for share in SHARES:
        accuracy = _accuracy(_average((first, second), (share, 1 - share)), first, data)
        echo(f"share {share:.1f}: {accuracy[-1]:.2f} at full depth on validation")
        scored.append((accuracy[-1], share))
    return max(scored, key=lambda pair: pair[0])[1]


def _average(runs: Sequence[Run], shares: Sequence[float]) -> MultiExitClassifier:
    first = _comparable(runs[0])
    for run in runs[1:]:
        other = _comparable(run)
        for name, value in first.items():
            if other[name] != value:
                raise InvalidInput(
                    f"runs: {name} differs ({value!r}, {other[name]!r}); "
                    "only runs with equal encoder, split and seed can be averaged"
                )
    model, _ = load_model(runs[0].folder / "model")
    weights = [run.model.state_dict() for run in runs]
    model.load_state_dict(
        {
            name: sum(share * part[name] for share, part in zip(shares, weights, strict=True))
            if value.is_floating_point()
            else value
            for name, value in weights[0].items()
        }
    )
    return model


def _comparable(run: Run) -> dict[str, Any]:
    facts = with_defaults(run.facts) | {"data_hash": run.facts["data_hash"]}
    return {name: facts[name] for name in (*EQUAL_FACTS, "data_hash")}


def _accuracy(model: MultiExitClassifier, run: Run, data: str | None) -> list[float]:
    validation = run.split(data).validation
    return accuracy_by_exit(predict(model, run.text_encoder, validation, run.device))
