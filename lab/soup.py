"""The weighted mean of two runs' weights: a 'model soup' (Wortsman et al. 2022)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lab.model import save_model
from lab.predict import accuracy_by_exit, predict
from lab.run import Run
from shared.errors import InvalidInput

SAME = ("task", "encoder", "pooling", "split", "seed", "limit", "data_hash", "max_tokens")


def mix(first: Run, second: Run, share: float, out: Path, data: str | None) -> dict[str, Any]:
    """Write the run whose weights are ``share`` of ``first``'s and the rest of ``second``'s.

    Both must come from the same encoder and the same split: only then does the held-out part say
    anything of their mean. Returns its facts, with accuracy by exit on the validation part.
    """
    for name in SAME:
        if first.facts.get(name) != second.facts.get(name):
            raise InvalidInput(
                f"runs: {name} differs ({first.facts.get(name)!r}, {second.facts.get(name)!r}); "
                "only runs of one encoder, split and seed can be mixed"
            )
    one, other = first.model.state_dict(), second.model.state_dict()
    mixed = {
        name: share * value + (1 - share) * other[name] if value.is_floating_point() else value
        for name, value in one.items()
    }
    model = first.model
    model.load_state_dict(mixed)
    validation = first.split(data).validation
    outputs = predict(model, first.tokenizer, validation, first.facts["max_tokens"])
    facts = first.facts | {
        "mixed": {"share": share, "with": second.facts},
        "validation_accuracy_by_exit": accuracy_by_exit(outputs),
    }
    save_model(model, out / "model", facts)
    shutil.copy(first.tokenizer_file, out / "model" / first.tokenizer_file.name)
    return facts
