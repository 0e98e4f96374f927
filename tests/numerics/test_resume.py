"""An answer resumed from an encoded hidden state equals the whole model's, for every layer."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lab.reports.pages import study_page
from shared.bundle.loading import Bundle
from shared.domain import LayerRange, Prediction
from shared.inference.classifier import Classifier
from shared.inference.codec import CODECS, Codec, Floats, ResumeLimits, decode, encode
from shared.inference.tokenizer import EncodedText
from testbed.texts import sample_sentences
from tests.support.paths import REPOSITORY

# largest allowed change of a probability at any exit; measured in docs/results/resume.md
BOUND: dict[Codec, float] = {"fp16": 0.05, "int8": 0.08}
PUBLISHED = REPOSITORY / "docs" / "results"


@pytest.fixture(scope="module")
def whole(bundle: Bundle) -> Classifier:
    return Classifier(bundle, LayerRange(1, bundle.manifest.layers))


@pytest.fixture(scope="module")
def rows(whole: Classifier) -> list[EncodedText]:
    """Return short and long texts, up to the model's maximum length."""
    texts = [*sample_sentences(), "fine", "it almost works, and that is what hurts " * 40]
    return [whole.encoder.encode(text) for text in texts]


@pytest.fixture(scope="module")
def limits(bundle: Bundle) -> ResumeLimits:
    manifest = bundle.manifest
    return ResumeLimits(
        bundle.bundle_id, manifest.hidden_size, manifest.max_tokens, manifest.layers
    )


def hidden_state_of(whole: Classifier, row: EncodedText, layer: int) -> Floats:
    """Return the output of ``layer`` for a text that was answered there."""
    keep: dict[int, Floats] = {}
    whole.classify([row], None, layer, keep=keep)
    return keep[0]


def every_exit(whole: Classifier, hidden_TH: Floats, after: int) -> list[Prediction]:
    """Return the prediction of each exit after layer ``after``, as if it were the last one."""
    mask_BT = np.ones((1, len(hidden_TH)), np.int32)
    hidden_BTH = np.ascontiguousarray(hidden_TH)[None]
    layers = range(after + 1, whole.layers.range.last + 1)
    return [
        whole.layers.classify(hidden_BTH, mask_BT, None, first=after + 1, last=last)[0]
        for last in layers
    ]


def test_resuming_without_encoding_is_bitwise_identical(
    whole: Classifier, rows: list[EncodedText]
) -> None:
    last = whole.layers.range.last
    for row in rows[::3]:
        (expected,) = whole.classify([row], None)
        for layer in range(1, last):
            assert whole.resume(hidden_state_of(whole, row, layer), layer, None) == expected


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("layer", range(1, 6))
def test_resumed_answer_is_within_the_codecs_error_bound(
    layer: int, codec: Codec, whole: Classifier, rows: list[EncodedText], limits: ResumeLimits
) -> None:
    assert whole.layers.range.last == 6, "adjust the layers of this test to the shipped bundle"
    bound = BOUND[codec]
    for row in rows:
        hidden_TH = hidden_state_of(whole, row, layer)
        state = decode(encode(hidden_TH, layer, limits.bundle_id, codec), limits)
        expected = every_exit(whole, hidden_TH, layer)
        for got, true in zip(every_exit(whole, state.hidden_TH, layer), expected, strict=True):
            assert got.exit_layer == true.exit_layer
            np.testing.assert_allclose(got.probabilities, true.probabilities, atol=bound)
            if true.confidence > 0.5 + bound:
                assert got.label_index == true.label_index


@pytest.mark.parametrize("alpha", [0.6, 0.9])
def test_resumed_row_exits_at_the_same_layer(
    alpha: float, whole: Classifier, rows: list[EncodedText]
) -> None:
    for row in rows[::4]:
        for layer in (1, 3):
            (expected,) = whole.classify([row], alpha, first_exit=layer + 1)
            assert whole.resume(hidden_state_of(whole, row, layer), layer, alpha) == expected


def test_hidden_state_of_a_row_is_the_same_in_a_batch(
    whole: Classifier, rows: list[EncodedText]
) -> None:
    batch = rows[:12]
    states: dict[int, Floats] = {}
    together = whole.classify(batch, 0.9, last=3, keep=states)
    assert sorted(states) == list(range(len(batch)))
    for i, row in enumerate(batch):
        assert states[i].shape == (row.tokens, 384)
        alone = hidden_state_of(whole, row, together[i].exit_layer)
        np.testing.assert_allclose(states[i], alone, atol=1e-3)


def test_published_results_are_of_the_shipped_bundle_and_within_bounds(bundle: Bundle) -> None:
    facts = json.loads((PUBLISHED / "extra" / "resume.json").read_text(encoding="utf-8"))
    written = (PUBLISHED / "resume.md").read_text(encoding="utf-8")
    assert written == study_page("resume", facts), "run: python -m lab.studies.resume"
    assert facts["bundle_id"] == bundle.bundle_id, (
        "the results are of another bundle; run: python -m lab.studies.resume"
    )
    for line in facts["accuracy"]:
        for codec in CODECS:
            assert line[codec]["moved"] <= BOUND[codec]
            assert line["fp32"]["accuracy"] - line[codec]["accuracy"] <= 0.35
