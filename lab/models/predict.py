"""Probabilities of every exit for a list of examples, in one pass of the torch model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from lab.data.examples import Example
from lab.models.device import explained_memory_error, model_on, move_inputs
from lab.models.encoded_examples import EncodedExamples
from lab.models.inputs import torch_inputs
from lab.models.model import MultiExitClassifier
from shared.inference.tokenizer import EncodedText, TextEncoder
from shared.terminal import progress_stream

BATCH = 64
"""Texts in a pass of the model."""


@dataclass(frozen=True)
class ExitOutputs:
    """``probabilities_ENC`` of every exit for N examples, and their ``labels_N``."""

    probabilities_ENC: NDArray[np.float32]
    labels_N: NDArray[np.int64]


def predict(
    model: MultiExitClassifier,
    encoder: TextEncoder,
    examples: Sequence[Example],
    device: torch.device,
) -> ExitOutputs:
    """Run all exits in fp32 on ``examples``; the result has their order.

    ``encoder`` is the tokenizer of the model's run.
    """
    rows = EncodedExamples(encoder, examples)
    return predict_encoded(model, rows, rows.labels_N, device)


def predict_encoded(
    model: MultiExitClassifier,
    rows: Sequence[EncodedText],
    labels_N: NDArray[np.int64],
    device: torch.device,
) -> ExitOutputs:
    """Run all exits in fp32 on encoded texts. The model moves to ``device`` and back."""
    with explained_memory_error("device", "choose cpu, or free the GPU"), model_on(model, device):
        return ExitOutputs(_probabilities(model, rows, device), labels_N)


@torch.inference_mode()
def _probabilities(
    model: MultiExitClassifier, rows: Sequence[EncodedText], device: torch.device
) -> NDArray[np.float32]:
    model.eval()
    order = sorted(range(len(rows)), key=lambda i: rows[i].tokens)
    probabilities_ENC = np.empty((model.layers, len(rows), model.classes), np.float32)
    for start in tqdm(
        range(0, len(order), BATCH), desc="predict", mininterval=2, delay=2, file=progress_stream()
    ):
        part = order[start : start + BATCH]
        inputs = torch_inputs([rows[i] for i in part], model.family, model.pad_id)
        logits_EBC = model(move_inputs(inputs, device))
        probabilities_ENC[:, part] = logits_EBC.softmax(-1).cpu().numpy()
    return probabilities_ENC


def accuracy_by_exit(outputs: ExitOutputs) -> list[float]:
    """Return the accuracy of exits 1 to l in percent."""
    right_EN = outputs.probabilities_ENC.argmax(-1) == outputs.labels_N
    return [round(float(share) * 100, 2) for share in right_EN.mean(1)]


def validation_loss(outputs: ExitOutputs) -> float:
    """Return eq. 1 on these examples: the sum over the exits of the mean cross-entropy, in nats."""
    rows = np.arange(len(outputs.labels_N))
    right_EN = outputs.probabilities_ENC[:, rows, outputs.labels_N].astype(np.float64)
    return float(-np.log(np.clip(right_EN, 1e-12, None)).mean(1).sum())
