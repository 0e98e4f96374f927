"""Features of pairs, by hand and from a word table."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lab.data.examples import Example
from lab.models.pair_features import PairFeatures
from shared.bundle.pair_features import PAIR_FEATURES, pair_features
from shared.inference.tokenizer import TextEncoder

U_H, V_H = np.array([3.0, 4.0], np.float32), np.array([3.0, 0.0], np.float32)


def test_pair_features_by_hand() -> None:
    found = pair_features(U_H, V_H, np.array([7, 8, 9, 9]), np.array([9]))
    named = dict(zip(PAIR_FEATURES, found.tolist(), strict=True))
    assert named == pytest.approx(
        {
            "cosine": 0.6,
            "dot_product": 9.0,
            "distance": 4.0,
            "mean_difference": 2.0,
            "largest_difference": 4.0,
            "jaccard": 1 / 3,
            "overlap_of_first": 1 / 3,
            "overlap_of_second": 1.0,
            "log_first_tokens": math.log(4),
            "log_second_tokens": 0.0,
            "log_length_ratio": math.log(4),
            "first_norm": 5.0,
            "second_norm": 3.0,
        }
    )


def test_features_of_equal_texts_and_of_zero_embeddings() -> None:
    ids = np.array([5, 6])
    found = pair_features(U_H, U_H, ids, ids)
    assert found[0] == pytest.approx(1.0)
    assert found[PAIR_FEATURES.index("jaccard")] == 1.0
    zero_H = np.zeros(2, np.float32)
    assert np.isfinite(pair_features(zero_H, zero_H, ids, ids)).all()


def test_first_and_second_text_have_their_own_means(tiny_encoder: Path) -> None:
    """Word i has the embedding (i, 0), so the norms are the mean ids of the two texts."""
    encoder = TextEncoder(tiny_encoder / "tokenizer.json", 16)
    rows = encoder.encode("fine film", "dull"), encoder.encode("fine film")
    size = int(max(row.ids_T.max() for row in rows)) + 1
    word_VH = np.stack([np.arange(size), np.zeros(size)], 1).astype(np.int8)
    made = PairFeatures(encoder, word_VH, np.ones(size, np.float32))
    (found,) = made.of([Example("fine film", "dull", 0)])
    assert rows[0].second_T is not None
    assert rows[1].second_T is None
    first = rows[0].ids_T[rows[0].content_T & ~rows[0].second_T]
    second = rows[0].ids_T[rows[0].second_T]
    assert found[PAIR_FEATURES.index("first_norm")] == pytest.approx(first.mean())
    assert found[PAIR_FEATURES.index("second_norm")] == pytest.approx(second.mean())
    assert found[PAIR_FEATURES.index("log_first_tokens")] == pytest.approx(math.log(len(first)))


def test_features_of_a_pair_with_an_empty_text_are_unknown(tiny_encoder: Path) -> None:
    """Heads then use the mean of each feature."""
    encoder = TextEncoder(tiny_encoder / "tokenizer.json", 16)
    row = encoder.encode("fine film", "dull")
    assert row.second_T is not None
    empty = replace(row, second_T=np.zeros_like(row.second_T))
    word_VH, scale_V = np.ones((40, 2), np.int8), np.ones(40, np.float32)
    (found,) = PairFeatures(encoder, word_VH, scale_V).of_rows([empty])
    assert np.isnan(found).all()
