"""Token ids and embeddings on edge and cloud equal those on the mobile, bit for bit."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from shared.bundle.loading import Bundle
from shared.bundle.manifest import EMBEDDINGS, TOKENIZER
from shared.domain import Prediction
from shared.errors import InvalidInput
from shared.inference.embeddings import Embeddings
from shared.inference.tokenizer import TextEncoder
from testbed.texts import sample_sentences

SAMPLES = sample_sentences()
PAIRS = [(text, None) for text in SAMPLES] + [(SAMPLES[0], SAMPLES[1]), ("long " * 900, None)]


@pytest.fixture(scope="module")
def encoder(bundle: Bundle) -> TextEncoder:
    return TextEncoder(bundle.path / TOKENIZER, bundle.manifest.max_tokens)


def test_ids_equal_those_of_encode(encoder: TextEncoder) -> None:
    for text, pair in PAIRS:
        whole, ids = encoder.encode(text, pair), encoder.ids(text, pair)
        assert list(ids.ids_T) == whole.ids_T.tolist()
        assert list(ids.type_ids_T) == whole.type_ids_T.tolist()
        assert (len(ids), ids.truncated) == (len(whole), whole.truncated)
        assert copy.copy(ids) == ids


@pytest.mark.parametrize("text", ["", "\u200b", "\u200d\u200d"])
def test_text_without_known_characters_is_refused(encoder: TextEncoder, text: str) -> None:
    for read in (encoder.encode, encoder.ids):
        with pytest.raises(InvalidInput, match="no character that the model knows"):
            read(text)


def test_embeddings_are_the_same_alone_and_in_any_batch(
    encoder: TextEncoder, bundle: Bundle
) -> None:
    embeddings = Embeddings(bundle.path / EMBEDDINGS)
    together = embeddings.hidden_of([encoder.ids(text, pair) for text, pair in PAIRS])
    for (text, pair), hidden_TH in zip(PAIRS, together, strict=True):
        alone_BTH, _ = embeddings.first_hidden([encoder.encode(text, pair)])
        np.testing.assert_array_equal(hidden_TH, alone_BTH[0])


@pytest.mark.parametrize("literal", ["[SEP]", "[CLS]", "[MASK]", "[PAD]"])
def test_control_tokens_in_a_text_are_text(literal: str, encoder: TextEncoder) -> None:
    row = encoder.encode(f"a {literal} film")
    assert set(row.ids_T[row.content_T].tolist()).isdisjoint({0, 101, 102, 103})
    assert row.ids_T[~row.content_T].tolist() == [101, 102]
    assert row.tokens > 6


def test_prediction_can_be_copied() -> None:
    one = Prediction(1, (0.25, 0.75), 0.75, 3)
    assert copy.copy(one) == one
