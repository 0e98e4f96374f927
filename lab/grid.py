"""The paper's grid search: batch size × learning rate, the best by full-depth validation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from lab.run import Run
from lab.train import TrainSettings, train

BATCH_SIZES = (8, 16, 32)
LEARNING_RATES = (1e-5, 2e-5, 3e-5, 4e-5, 5e-5)
EPOCHS = 5


def search(
    settings: TrainSettings,
    out: Path,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    learning_rates: Sequence[float] = LEARNING_RATES,
) -> dict[str, Any]:
    """Train every point in ``out``/grid, keep the best one's model in ``out``.

    The best has the highest validation accuracy at the last exit, and of equals the smallest
    learning rate. A point that is done is not run again, one that was interrupted goes on.
    Returns the facts of the best; ``out``/grid.json has every point's accuracy by exit.
    """
    points = [
        replace(settings, batch_size=size, learning_rate=rate)
        for size in batch_sizes
        for rate in learning_rates
    ]
    found: list[tuple[float, float, Path]] = []
    table = []
    for point in tqdm(points, desc="grid", unit="point"):
        folder = out / "grid" / f"b{point.batch_size}-lr{point.learning_rate:g}"
        facts = _done(folder, point) or train(point, folder)
        accuracy = facts["validation_accuracy_by_exit"]
        found.append((-accuracy[-1], point.learning_rate, folder))
        table.append(
            {
                "batch_size": point.batch_size,
                "learning_rate": point.learning_rate,
                "validation_accuracy_by_exit": accuracy,
            }
        )
    best = min(found)[2]
    shutil.copytree(best / "model", out / "model", dirs_exist_ok=True)
    (out / "grid.json").write_text(json.dumps({"best": best.name, "points": table}, indent=1))
    return Run(out).facts


def _done(folder: Path, point: TrainSettings) -> dict[str, Any] | None:
    """The facts of a point that was trained with these very settings."""
    file = folder / "model" / "dimee.json"
    if not file.is_file():
        return None
    facts: dict[str, Any] = json.loads(file.read_text())
    same = facts["batch_size"] == point.batch_size and facts["epochs"] == point.epochs
    return facts if same and facts["learning_rate"] == point.learning_rate else None
