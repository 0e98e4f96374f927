"""Embedding tables: the mean word embedding for routing, and the input of the first layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from shared.bundle.pair_features import PAIR_FEATURES, pair_features
from shared.errors import BundleError
from shared.inference.tokenizer import EncodedText, TokenIds
from shared.short_line import short_line

Floats = NDArray[np.float32]
TABLES = ("word", "word_scale", "position", "type", "gamma", "beta", "epsilon")
PROJECTION = ("projection", "projection_bias")
"""Tables of encoders whose embeddings have another size than their layers."""


def mean_of_rows(word_VH: NDArray[np.int8], scale_V: Floats, ids_T: NDArray[np.int64]) -> Floats:
    """Return ``mean_H``, the mean of the rows ``ids_T`` of an int8 word table."""
    sum_H: Floats = scale_V[ids_T] @ word_VH[ids_T].astype(np.float32)
    sum_H /= len(ids_T)
    return sum_H


def pair_features_of(
    word_VH: NDArray[np.int8], scale_V: Floats, encoded: EncodedText
) -> NDArray[np.float64] | None:
    """Return ``pair_P`` of a pair (`shared.bundle.pair_features`); None for a single text.

    All features are NaN if one of the texts has no known token, such as invisible characters only.
    """
    if encoded.second_T is None:
        return None
    ids = [
        encoded.ids_T[encoded.content_T & ~encoded.second_T],
        encoded.ids_T[encoded.content_T & encoded.second_T],
    ]
    if not all(len(part) for part in ids):
        return np.full(len(PAIR_FEATURES), np.nan)
    first_H, second_H = (mean_of_rows(word_VH, scale_V, part) for part in ids)
    return pair_features(first_H, second_H, *ids)


class Embeddings:
    """Word, position and type tables. The word table is int8 with one fp32 scale per row.

    The embedding size E equals the hidden size H, or a projection maps one to the other.

    Shape suffixes: B rows, N tokens of all rows, T tokens, E embedding size, H hidden size,
    V vocabulary, K segments.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            with safe_open(file, framework="numpy") as tensors:
                tables = {name: tensors.get_tensor(name) for name in TABLES}
                if PROJECTION[0] in tensors.keys():  # noqa: SIM118, safe_open is no mapping
                    tables |= {name: tensors.get_tensor(name) for name in PROJECTION}
            self._epsilon = float(tables["epsilon"].ravel()[0])
        except Exception as error:  # safetensors' exceptions have no public base class
            raise self._unusable(short_line(str(error), 200)) from None
        self._word_VE: NDArray[np.int8] = tables["word"]
        self._scale_V: Floats = tables["word_scale"]
        self._position_TE: Floats = tables["position"]
        self._type_KE: Floats = tables["type"]
        self._gamma_E: Floats = tables["gamma"]
        self._beta_E: Floats = tables["beta"]
        self._projection_HE: Floats | None = tables.get(PROJECTION[0])
        self._projection_H: Floats | None = tables.get(PROJECTION[1])

    @property
    def vocabulary(self) -> int:
        """Number V of tokens in the word table."""
        return len(self._word_VE)

    @property
    def size(self) -> int:
        """Embedding size E."""
        return len(self._gamma_E)

    def check(self, hidden_size: int, max_tokens: int) -> None:
        """Raise `BundleError` unless the tables fit together and to the layers."""
        size = self._word_VE.shape[-1:]
        projected = self._projection_HE is not None
        shapes_fit = (
            self._word_VE.ndim == 2
            and self._scale_V.shape == self._word_VE.shape[:1]
            and self._position_TE.ndim == self._type_KE.ndim == 2
            and self._position_TE.shape[1:] == self._type_KE.shape[1:] == size
            and len(self._position_TE) >= max_tokens
            and len(self._type_KE) >= 1
            and self._gamma_E.shape == self._beta_E.shape == size
            and (projected or size == (hidden_size,))
        )
        if self._projection_HE is not None and self._projection_H is not None:
            shapes_fit &= self._projection_HE.shape == (hidden_size, *size)
            shapes_fit &= self._projection_H.shape == (hidden_size,)
        if not shapes_fit:
            raise self._unusable("their shapes do not fit together or to the manifest")
        tables = [self._scale_V, self._position_TE, self._type_KE, self._gamma_E, self._beta_E]
        tables += [
            table for table in (self._projection_HE, self._projection_H) if table is not None
        ]
        if self._word_VE.dtype != np.int8 or any(table.dtype != np.float32 for table in tables):
            raise self._unusable("the word table must be of type int8, the others of float32")
        if not math.isfinite(self._epsilon) or not all(
            np.isfinite(table).all() for table in tables
        ):
            raise self._unusable("they hold numbers that are not finite")

    def _unusable(self, problem: str) -> BundleError:
        return BundleError(
            f"bundle: {self._file} does not hold embedding tables ({problem}); export the "
            "bundle's run again with this version of dimee"
        )

    def mean_word_embedding(self, encoded: EncodedText) -> Floats:
        """Return ``mean_E`` of a text's words, without special tokens (paper, section III)."""
        return mean_of_rows(self._word_VE, self._scale_V, encoded.ids_T[encoded.content_T])

    def pair_features(self, encoded: EncodedText) -> NDArray[np.float64] | None:
        """Return ``pair_P`` of a pair of texts, None for a single text."""
        return pair_features_of(self._word_VE, self._scale_V, encoded)

    def first_hidden(self, rows: Sequence[EncodedText]) -> tuple[Floats, NDArray[np.int32]]:
        """Embed and pad rows; return ``hidden_BTH``, the input of layer 1, and ``mask_BT``."""
        lengths = [row.tokens for row in rows]
        ids_BT = np.zeros((len(rows), max(lengths)), np.int64)
        types_BT = np.zeros_like(ids_BT)
        mask_BT = np.zeros(ids_BT.shape, np.int32)
        for i, row in enumerate(rows):
            ids_BT[i, : lengths[i]] = row.ids_T
            types_BT[i, : lengths[i]] = row.type_ids_T
            mask_BT[i, : lengths[i]] = 1
        hidden_BTH = self._embed(ids_BT, types_BT, self._position_TE[: ids_BT.shape[1]])
        return hidden_BTH, mask_BT

    def hidden_of(self, rows: Sequence[EncodedText | TokenIds]) -> list[Floats]:
        """Return ``hidden_TH`` of each row without padding; the values equal `first_hidden`'s."""
        lengths = [len(row) for row in rows]
        positions_N = np.concatenate([self._position_TE[:length] for length in lengths])
        ids_N = np.concatenate([row.ids_T for row in rows])
        types_N = np.concatenate([row.type_ids_T for row in rows])
        hidden_NH = self._embed(ids_N, types_N, positions_N)
        return np.split(hidden_NH, np.cumsum(lengths[:-1]))

    def _embed(
        self, ids: NDArray[np.int64], types: NDArray[np.int64], positions_E: Floats
    ) -> Floats:
        """Look up, add, normalise and project each token independently of the others."""
        sum_E = self._word_VE[ids] * self._scale_V[ids][..., None]
        # encoders with one segment distinguish the texts of a pair by their separators
        sum_E += self._type_KE[types] if len(self._type_KE) > 1 else self._type_KE[0]
        sum_E += positions_E
        sum_E -= sum_E.mean(-1, keepdims=True)
        variance_1 = np.square(sum_E).mean(-1, keepdims=True)
        sum_E /= np.sqrt(variance_1 + self._epsilon)
        sum_E *= self._gamma_E
        sum_E += self._beta_E
        if self._projection_HE is None:
            result: Floats = sum_E
        else:
            # einsum sums each token alone; a product of matrices rounds by the number of tokens
            result = np.einsum("...e,he->...h", sum_E, self._projection_HE) + self._projection_H
        return result
