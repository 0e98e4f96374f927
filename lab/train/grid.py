"""The paper's grid search over batch sizes and learning rates."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lab.models.device import CPU
from lab.train.early_stopping import Diverged
from lab.train.settings import TrainSettings, with_defaults
from lab.train.trainer import train
from shared.errors import InvalidInput
from shared.files import refuse_special_files
from shared.terminal import progress_stream

BATCH_SIZES = (8, 16, 32)
LEARNING_RATES = (1e-5, 2e-5, 3e-5, 4e-5, 5e-5)
EPOCHS = 5


def search(
    settings: TrainSettings,
    out: Path,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    learning_rates: Sequence[float] = LEARNING_RATES,
    device: torch.device = CPU,
) -> dict[str, Any]:
    """Train every point in ``out``/grid and copy the best model to ``out``.

    The best point has the highest validation accuracy at the last exit (with a frozen classifier,
    on average over the others), and among equal points the smallest learning rate. Finished points
    are not repeated, interrupted ones are resumed, and diverged ones cannot win. Returns the facts
    of the best point; ``out``/grid.json has every point's accuracy by exit in percent (null if it
    diverged). Raises `InvalidInput` for wrong settings, data or folder, and `Diverged` if every
    point diverges.
    """
    _check(batch_sizes, learning_rates, out)
    points = [
        replace(settings, batch_size=size, learning_rate=rate)
        for size in dict.fromkeys(batch_sizes)
        for rate in dict.fromkeys(learning_rates)
    ]
    trained: list[tuple[TrainSettings, dict[str, Any] | None]] = []
    with tqdm(points, desc="grid", unit="point", file=progress_stream()) as progress:
        for point in progress:
            progress.set_postfix_str(_name(point))
            trained.append((point, _run(point, out / "grid" / _name(point), device)))
    best, best_facts = _best(trained)
    _copy_winner(out / "grid" / _name(best), out)
    table = [
        {
            "batch_size": point.batch_size,
            "learning_rate": point.learning_rate,
            "validation_accuracy_by_exit": facts and facts["validation_accuracy_by_exit"],
        }
        for point, facts in trained
    ]
    part = out / "grid.part"
    part.write_text(json.dumps({"best": _name(best), "points": table}, indent=1) + "\n")
    part.replace(out / "grid.json")
    return best_facts


def _check(batch_sizes: Sequence[int], learning_rates: Sequence[float], out: Path) -> None:
    if not batch_sizes or min(batch_sizes) < 1:
        raise InvalidInput("grid_batch_sizes: each must be 1 or more; give numbers like 8,16,32")
    if not learning_rates or not all(math.isfinite(rate) and rate > 0 for rate in learning_rates):
        raise InvalidInput("grid_learning_rates: each must be above 0; give numbers like 1e-5,3e-5")
    refuse_special_files(out, "out")
    has_run = any((out / name).exists() for name in ("model", "best.safetensors"))
    if has_run and not (out / "grid").is_dir():
        raise InvalidInput(f"out: {out} holds a run without a grid; choose another folder")


def _name(point: TrainSettings) -> str:
    return f"b{point.batch_size}-lr{point.learning_rate:g}"


def _run(point: TrainSettings, folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Return the facts of a point, trained now or before; None if it diverges."""
    file = folder / "model" / "dimee.json"
    if file.is_file():
        facts: dict[str, Any] = json.loads(file.read_text())
        if with_defaults(facts) != asdict(point):
            raise InvalidInput(
                f"out: {folder} belongs to a grid with other settings; "
                "choose another folder, or remove it to start again"
            )
    else:
        try:
            facts = train(point, folder, device=device)
        except Diverged as error:
            tqdm.write(f"{folder.name}: {error.message}")
            return None
    # four times the size of the weights, and not needed after the training
    for name in ("checkpoint.pt", "best.safetensors"):
        (folder / name).unlink(missing_ok=True)
    return facts


def _best(
    trained: Sequence[tuple[TrainSettings, dict[str, Any] | None]],
) -> tuple[TrainSettings, dict[str, Any]]:
    ranked = [
        (*_losses(point, facts), point.learning_rate, point.batch_size, number)
        for number, (point, facts) in enumerate(trained)
        if facts is not None
    ]
    if not ranked:
        raise Diverged("grid_learning_rates: training diverged at every point; choose lower ones")
    point, facts = trained[min(ranked)[-1]]
    assert facts is not None
    return point, facts


def _losses(point: TrainSettings, facts: dict[str, Any]) -> tuple[float, float]:
    """Return what the best point minimises: the negative accuracy at full depth.

    Full depth is the same at every point of a frozen classifier; there, the mean of the earlier
    exits decides.
    """
    *earlier, last = facts["validation_accuracy_by_exit"]
    frozen = point.freeze_backbone and point.from_classifier is not None
    return -last, (-sum(earlier) / max(1, len(earlier)) if frozen else 0.0)


def _copy_winner(winner: Path, out: Path) -> None:
    """Copy the winner's model (atomically) and log to ``out``."""
    part = out / "model.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(winner / "model", part)
    shutil.rmtree(out / "model", ignore_errors=True)
    part.rename(out / "model")
    shutil.copy(winner / "epochs.json", out / "epochs.json")
