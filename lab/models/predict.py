"""Probabilities of every exit for a list of examples, in one pass of the torch model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from lab.data.examples import Example
from lab.models.model import MultiExitClassifier


@dataclass(frozen=True)
class ExitOutputs:
    """``probabilities_ENC`` of every exit for N examples, and their ``labels_N``."""

    probabilities_ENC: NDArray[np.float32]
    labels_N: NDArray[np.int64]


@torch.inference_mode()
def predict(
    model: MultiExitClassifier,
    tokenizer: Any,
    examples: Sequence[Example],
    max_tokens: int,
    batch_size: int = 64,
) -> ExitOutputs:
    """Run all exits in fp32 on ``examples``; the result has their order."""
    model.eval()
    order = sorted(
        range(len(examples)), key=lambda i: len(examples[i].text + (examples[i].pair or ""))
    )
    probabilities_ENC = np.empty((model.layers, len(examples), model.classes), np.float32)
    for start in tqdm(range(0, len(order), batch_size), desc="predict", mininterval=2, delay=2):
        rows = order[start : start + batch_size]
        inputs = tokenizer(
            [examples[i].text for i in rows],
            [examples[i].pair for i in rows] if examples[0].pair is not None else None,
            truncation=True,
            max_length=max_tokens,
            padding=True,
            return_tensors="pt",
        )
        probabilities_ENC[:, rows] = model(dict(inputs)).softmax(-1).numpy()
    return ExitOutputs(probabilities_ENC, np.array([row.label for row in examples]))


def accuracy_by_exit(outputs: ExitOutputs) -> list[float]:
    """Return the accuracy of exits 1 to l in percent."""
    right_EN = outputs.probabilities_ENC.argmax(-1) == outputs.labels_N
    return [round(float(share) * 100, 2) for share in right_EN.mean(1)]


def validation_loss(outputs: ExitOutputs) -> float:
    """Return eq. 1 on these examples: the sum over the exits of the mean cross-entropy, in nats."""
    rows = np.arange(len(outputs.labels_N))
    right_EN = outputs.probabilities_ENC[:, rows, outputs.labels_N].astype(np.float64)
    return float(-np.log(np.clip(right_EN, 1e-12, None)).mean(1).sum())
