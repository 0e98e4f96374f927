"""Data of a training: token ids, labels and a teacher's logits.

Shape suffixes: N texts, C classes.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lab.data.splits import Split
from lab.models.encoded_examples import EncodedExamples
from lab.train.settings import TrainSettings
from lab.train.teacher import teacher_logits
from shared.inference.tokenizer import TextEncoder


@dataclass(frozen=True)
class TrainingData:
    """Token ids of both parts, the teacher's logits, and the id of the mask token."""

    train: EncodedExamples
    validation: EncodedExamples
    teacher_NC: Tensor | None
    mask_id: int | None


def encode_data(
    split: Split, tokenizer: Any, settings: TrainSettings, classes: int, device: torch.device
) -> TrainingData:
    """Tokenize both parts once, with the tokenizer that will serve the bundle.

    The teacher's logits of the training part are computed on ``device`` if a run is the teacher.
    """
    teacher_NC = None
    if settings.teacher is not None:
        logits_NC = teacher_logits(Path(settings.teacher), split.train, classes, device)
        teacher_NC = torch.from_numpy(logits_NC)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.json"
        save_tokenizer(tokenizer, file)
        encoder = TextEncoder(file, settings.max_tokens)
    return TrainingData(
        EncodedExamples(encoder, split.train, "training"),
        EncodedExamples(encoder, split.validation, "validation"),
        teacher_NC,
        tokenizer.mask_token_id,
    )


def save_tokenizer(tokenizer: Any, file: Path) -> None:
    """Write the ``tokenizer.json`` of a run, without truncation and padding."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.save(str(file))
