"""Bundles of a tiny encoder with fixed weights, exported from made-up data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.export.bundle import export_run
from lab.models.run import Run
from tests.support.tiny_data import make_pair_rows, write_rows
from tests.support.tiny_runs import write_fixed_run

OPTIONS: dict[str, Any] = {
    "mobile_layers": 1, "edge_layers": 2, "mu": 0.1, "cloud_fee": None, "max_tokens": 64,
}  # fmt: skip
PAIR_TASKS = {"mrpc": ("sentence1", "sentence2", 2), "mnli": ("premise", "hypothesis", 3)}
"""GLUE tasks of pairs: names of the fields, and number of labels."""


def awkward_pair_rows(task: str, count: int, seed: int) -> list[dict[str, object]]:
    """Return pairs with apostrophes, quotes and other alphabets, in the fields of ``task``."""
    first, second, labels = PAIR_TASKS[task]
    rows = []
    for number, row in enumerate(make_pair_rows(count, seed)):
        text = f'{row["sentence1"]}, it\'s "{"été" if number % 2 else "雨"}" $HOME `x` !'
        rows.append({first: text, second: row["sentence2"], "label": number % labels})
    return rows


def export_pair_bundle(
    folder: Path, encoder: Path, task: str = "mrpc", samples: bool = True
) -> Path:
    """Train nothing, export a bundle of pairs to ``folder/bundle`` and return that folder."""
    write_rows(folder / "data" / "train.jsonl", awkward_pair_rows(task, 400, 3))
    run = write_fixed_run(folder / "run", folder / "data", encoder, task)
    export_run(Run(run), folder / "bundle", None, with_samples=samples, **OPTIONS)
    return folder / "bundle"
