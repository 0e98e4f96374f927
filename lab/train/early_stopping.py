"""Early stopping: the best epoch's weights are kept, and a training that diverges ends."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from tqdm import tqdm

from lab.models.encoded_examples import EncodedExamples
from lab.models.model import MultiExitClassifier
from lab.models.predict import accuracy_by_exit, predict_encoded, validation_loss
from lab.train.settings import TrainSettings
from shared.errors import InvalidInput


class Diverged(InvalidInput):
    """Loss, gradient or outputs became infinite or NaN; the best epoch so far stays on disk."""


def diverged(settings: TrainSettings, out: Path, step: int) -> Diverged:
    best = out / "best.safetensors"
    advice = f"; the best epoch so far stays in {best}" if best.is_file() else ""
    return Diverged(
        f"learning_rate: training diverged at step {step}; choose a lower one than "
        f"{settings.learning_rate:g} and another --out{advice}"
    )


def save_if_best(
    model: MultiExitClassifier,
    validation: EncodedExamples,
    settings: TrainSettings,
    out: Path,
    step: int,
) -> None:
    """Early stopping, as in the paper: save the weights if this is the best epoch at full depth.

    Equal epochs are ranked by the mean accuracy of the earlier exits, then by the loss (eq. 1).
    """
    device = next(model.parameters()).device
    outputs = predict_encoded(model, validation, validation.labels_N, device)
    if not np.isfinite(outputs.probabilities_ENC).all():
        raise diverged(settings, out, step)
    epoch = {"accuracy": accuracy_by_exit(outputs), "loss": round(validation_loss(outputs), 6)}
    log = out / "epochs.json"
    epochs: dict[str, dict[str, Any]] = json.loads(log.read_text()) if log.is_file() else {}
    # logs of older versions have accuracies only
    epochs = {
        last_step: logged if isinstance(logged, dict) else {"accuracy": logged, "loss": None}
        for last_step, logged in epochs.items()
    }
    earlier = [rank(logged) for last_step, logged in epochs.items() if int(last_step) < step]
    if not earlier or rank(epoch) > max(earlier):
        part = out / "best.part"
        save_file(model.state_dict(), part)
        part.replace(out / "best.safetensors")
    part = out / "epochs.part"
    part.write_text(json.dumps(epochs | {str(step): epoch}, indent=2) + "\n")
    part.replace(log)
    tqdm.write(f"validation accuracy by exit after step {step}: {epoch['accuracy']}")


def rank(epoch: dict[str, Any]) -> tuple[float, float, float]:
    """Return the key to compare epochs by: full depth, mean of the earlier exits, lower loss.

    Full depth is the same in every epoch if it is a frozen classifier's; the trained exits decide.
    """
    *earlier, last = epoch["accuracy"]
    loss = math.inf if epoch["loss"] is None else epoch["loss"]
    return last, round(sum(earlier) / max(1, len(earlier)), 6), -loss
