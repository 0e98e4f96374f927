"""The word table in 8 bits, as a bundle has it, and mean word embeddings from it.

Shape suffixes: V vocabulary, H hidden size, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lab.models.model import MultiExitClassifier
from shared.inference.embeddings import mean_of_rows
from shared.inference.tokenizer import EncodedText


def word_rows(model: MultiExitClassifier) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return the model's ``word_VH`` in int8 and one fp32 scale for each row."""
    weight = model.encoder.embeddings.word_embeddings.weight
    return quantised_rows(weight.detach().float().numpy())


def quantised_rows(
    word_VH: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a word table in int8 and one fp32 scale for each row."""
    scale_V = np.abs(word_VH).max(1) / 127.0
    safe_V = np.where(scale_V == 0, 1.0, scale_V)
    quantised_VH = np.rint(word_VH / safe_V[:, None]).clip(-127, 127).astype(np.int8)
    return quantised_VH, scale_V.astype(np.float32)


def mean_embeddings(model: MultiExitClassifier, rows: Sequence[EncodedText]) -> NDArray[np.float32]:
    """Return ``embedding_NH`` like the mobile: from the word table in 8 bits."""
    word_VH, scale_V = word_rows(model)
    return np.stack([mean_of_rows(word_VH, scale_V, row.ids_T[row.content_T]) for row in rows])
