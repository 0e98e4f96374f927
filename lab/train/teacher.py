"""Logits of a teacher for the training texts, from a folder of exit outputs or from a run.

Shape suffixes: N texts, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lab.data.examples import Example, data_hash
from lab.evaluate.outputs import FACTS, LOGITS, last_logits
from lab.models.device import CPU
from lab.models.run import Run
from shared.errors import InvalidInput
from shared.files import refuse_special_files


def teacher_logits(
    source: Path, train: Sequence[Example], classes: int, device: torch.device = CPU
) -> NDArray[np.float32]:
    """Return ``logits_NC`` of the teacher's last exit for ``train``, in its order.

    ``source`` is a folder of exit outputs with `LOGITS`, or a run, whose model computes them.
    Raises `InvalidInput` for other folders, and for logits of other texts or classes.
    """
    refuse_special_files(source, "teacher")
    if (source / LOGITS).is_file():
        logits_NC = _saved_logits(source, train)
    elif (source / "model" / "dimee.json").is_file():
        logits_NC = last_logits(Run(source, device), train)
    else:
        raise InvalidInput(
            f"teacher: {source} holds neither {LOGITS} nor a trained model; "
            "give a folder that `dimee outputs --train-logits` wrote, or a run"
        )
    if logits_NC.shape[1] != classes:
        raise InvalidInput(
            f"teacher: {source} has {logits_NC.shape[1]} classes, but the data have {classes}; "
            "give a teacher of the same task"
        )
    return logits_NC


def _saved_logits(source: Path, train: Sequence[Example]) -> NDArray[np.float32]:
    try:
        train_hash = json.loads((source / FACTS).read_text())["train_hash"]
        loaded = np.load(source / LOGITS, allow_pickle=False)
        logits_NC: NDArray[np.float32] = loaded.astype(np.float32)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(
            f"teacher: {source} cannot be read ({type(error).__name__}: {error}); "
            f"give a folder with {FACTS} and {LOGITS}"
        ) from None
    if train_hash != data_hash(train) or logits_NC.ndim != 2 or len(logits_NC) != len(train):
        raise InvalidInput(
            f"teacher: {source} was made for other training texts; "
            "give the same --data, --split and --seed, or another teacher"
        )
    if not np.isfinite(logits_NC).all():
        raise InvalidInput(f"teacher: {source / LOGITS} holds values that are not finite")
    return logits_NC
