"""The runtime ``cuda`` answers as onnxruntime does; here it runs on torch's CPU path.

Two things differ. The GPU stores weights and states in fp16, which the CPU path rounds to as well;
and onnxruntime rounds the input of each product to 8 bits, which the GPU does not. Rounding can
change an answer only where the two labels' probabilities are nearly equal, or the confidence is
nearly α: a tie.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from shared.bundle.loading import Bundle
from shared.domain import LayerRange, Prediction
from shared.inference.classifier import Classifier
from shared.inference.cuda.batch import DeviceBatch
from shared.inference.cuda.layer import Precision
from shared.inference.cuda.layers import CudaLayers
from shared.inference.devices import TORCH_CPU
from shared.inference.layer_batcher import Row
from shared.inference.layers import meets_threshold, softmax
from shared.inference.tokenizer import EncodedText
from testbed.texts import sample_sentences
from tests.support.cuda import BATCH, probabilities_by_exit, run_rows

Probabilities = NDArray[np.float32]
FP16_CLOSE = 0.004
"""Largest difference of a probability by fp16's rounding alone; 0.0016 was measured."""
ONNX_CLOSE = 0.12
"""Largest difference of a probability from onnxruntime's; 0.078 was measured."""
ONNX_TIE = 0.04
"""Largest distance of a probability from a half, or from α, at which 8-bit inputs may change the
answer; 0.020 was measured."""
MAX_TIES = 8
"""Most of the 872 texts whose answer at one exit differs; 4 was measured."""
ALPHAS = (0.6, 0.9, 0.99)
TEXTS = sample_sentences()


@pytest.fixture(scope="module")
def onnx(bundle: Bundle) -> Classifier:
    return Classifier(bundle, LayerRange(1, bundle.manifest.layers))


@pytest.fixture(scope="module")
def cuda(bundle: Bundle) -> Classifier:
    return Classifier(bundle, LayerRange(1, bundle.manifest.layers), device=TORCH_CPU)


@pytest.fixture(scope="module")
def layers(cuda: Classifier) -> CudaLayers:
    assert isinstance(cuda.layers, CudaLayers)
    return cuda.layers


@pytest.fixture(scope="module")
def texts(cuda: Classifier) -> list[EncodedText]:
    return [cuda.encoder.encode(text) for text in TEXTS]


@pytest.fixture(scope="module")
def validation(glue: Path, onnx: Classifier) -> list[EncodedText]:
    lines = (glue / "sst2" / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    return [onnx.encoder.encode(json.loads(line)["sentence"]) for line in lines]


@pytest.fixture(scope="module")
def by_onnx(onnx: Classifier, validation: list[EncodedText]) -> Probabilities:
    """``probabilities_ENC`` of every exit, by onnxruntime."""
    manifest = onnx.bundle.manifest
    order = sorted(range(len(validation)), key=lambda i: validation[i].tokens)
    found_ENC = np.empty((manifest.layers, len(order), len(manifest.labels)), np.float32)
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        hidden_BTH, mask_BT = onnx.embeddings.first_hidden([validation[i] for i in part])
        for layer in range(1, manifest.layers + 1):
            hidden_BTH, logits_BC = onnx.layers.run_layer(layer, hidden_BTH, mask_BT)
            found_ENC[layer - 1, part] = softmax(logits_BC)
    return found_ENC


@pytest.fixture(scope="module")
def by_cuda(bundle: Bundle, layers: CudaLayers, validation: list[EncodedText]) -> Probabilities:
    """``probabilities_ENC`` of every exit, by the runtime ``cuda``."""
    manifest = bundle.manifest
    return probabilities_by_exit(layers.batch, validation, len(manifest.labels), manifest.layers)


def exit_layers(probabilities_ENC: Probabilities, alpha: float | None) -> NDArray[np.int64]:
    """Return the exit layer of each text."""
    exits_EN = meets_threshold(probabilities_ENC.max(2), alpha)
    exits_EN[-1] = True
    layers_N: NDArray[np.int64] = exits_EN.argmax(0) + 1
    return layers_N


def test_labels_of_every_exit_are_those_of_onnxruntime(
    by_onnx: Probabilities, by_cuda: Probabilities
) -> None:
    assert by_onnx.shape[1] == 872
    assert np.abs(by_onnx - by_cuda).max() <= ONNX_CLOSE
    differs_EN = by_onnx.argmax(2) != by_cuda.argmax(2)
    margin_EN = np.abs(by_onnx[..., 0] - 0.5)
    assert margin_EN[differs_EN].max(initial=0) <= ONNX_TIE
    assert differs_EN.sum(1).max() <= MAX_TIES


@pytest.mark.parametrize("alpha", ALPHAS)
def test_exit_layers_are_those_of_onnxruntime(
    alpha: float, by_onnx: Probabilities, by_cuda: Probabilities
) -> None:
    ours_N, theirs_N = exit_layers(by_cuda, alpha), exit_layers(by_onnx, alpha)
    assert len(set(theirs_N.tolist())) >= 3
    differs = np.flatnonzero(ours_N != theirs_N)
    first = np.minimum(ours_N, theirs_N)[differs] - 1
    confidence = by_onnx[first, differs].max(1)
    assert np.abs(confidence - alpha).max(initial=0) <= ONNX_TIE
    assert len(differs) <= 2 * MAX_TIES


def test_early_exit_in_batches_gives_the_layers_and_labels_of_each_exit(
    bundle: Bundle, layers: CudaLayers, validation: list[EncodedText], by_cuda: Probabilities
) -> None:
    alpha = bundle.manifest.alpha
    expected_N = exit_layers(by_cuda, alpha)
    found = run_rows(layers.batcher(), [Row(text, 0, alpha) for text in validation[::4]])
    for number, prediction in zip(range(0, len(validation), 4), found, strict=True):
        expected_C = by_cuda[expected_N[number] - 1, number]
        if prediction.exit_layer != expected_N[number]:
            first = min(prediction.exit_layer, expected_N[number]) - 1
            assert abs(by_cuda[first, number].max() - alpha) <= FP16_CLOSE
        else:
            assert prediction.probabilities == pytest.approx(expected_C, abs=FP16_CLOSE)


class Exact(Precision):
    """fp32 throughout: what fp16's rounding is measured against."""

    def stored(self, values: torch.Tensor) -> torch.Tensor:
        return values.float()


def test_fp16_changes_no_probability_by_more_than_its_rounding(
    bundle: Bundle, validation: list[EncodedText], by_cuda: Probabilities
) -> None:
    manifest, every = bundle.manifest, slice(0, None, 4)
    exact = DeviceBatch(bundle, TORCH_CPU, Exact(torch.device("cpu")))
    for layer in range(1, manifest.layers + 1):
        exact.add_layer(layer)
    rows, ours = validation[every], by_cuda[:, every]
    found = probabilities_by_exit(exact, rows, len(manifest.labels), manifest.layers)
    difference = np.abs(found - ours)
    assert 0 < difference.max() <= FP16_CLOSE
    differs_EN = found.argmax(2) != ours.argmax(2)
    assert np.abs(found[..., 0] - 0.5)[differs_EN].max(initial=0) <= FP16_CLOSE


def assert_same(found: Prediction, expected: Prediction, alpha: float | None) -> None:
    """Check that two predictions are equal but for rounding; a tie at ``alpha`` may move."""
    if alpha is not None and abs(expected.confidence - alpha) <= FP16_CLOSE:
        return
    assert found.exit_layer == expected.exit_layer
    assert found.probabilities == pytest.approx(expected.probabilities, abs=FP16_CLOSE)


@pytest.mark.parametrize("alpha", [None, *ALPHAS])
def test_answer_is_the_same_alone_and_in_a_batch(
    alpha: float | None, layers: CudaLayers, texts: list[EncodedText]
) -> None:
    rows = texts[::3]
    alone = [run_rows(layers.batcher(), [Row(row, 0, alpha)])[0] for row in rows]
    order = np.random.default_rng(3).permutation(len(rows))
    together = run_rows(layers.batcher(), [Row(rows[i], 0, alpha) for i in order])
    for position, i in enumerate(order):
        assert_same(together[position], alone[i], alpha)
    if alpha == 0.9:
        assert len({prediction.exit_layer for prediction in alone}) >= 3


def test_rows_of_different_thresholds_share_a_batch(
    layers: CudaLayers, texts: list[EncodedText]
) -> None:
    thresholds = [None, 0.6, 0.9, 0.99]
    rows = [Row(text, 0, thresholds[i % 4]) for i, text in enumerate(texts[:20])]
    together = run_rows(layers.batcher(), rows)
    for row, found in zip(rows, together, strict=True):
        (alone,) = run_rows(layers.batcher(), [Row(row.source, 0, row.alpha)])
        assert_same(found, alone, row.alpha)
        assert row.compute_ms > 0


@pytest.mark.parametrize("alpha", [None, 0.9])
def test_resuming_after_any_layer_gives_the_same_answer(
    alpha: float | None, layers: CudaLayers, cuda: Classifier, texts: list[EncodedText]
) -> None:
    rows = texts[:6]
    whole = run_rows(layers.batcher(), [Row(row, 0, alpha) for row in rows])
    hidden_BTH, mask_BT = cuda.embeddings.first_hidden(rows)
    for split in range(1, layers.range.last):
        hidden_BTH, _ = layers.run_layer(split, hidden_BTH, mask_BT)
        states = [hidden_BTH[i, : row.tokens] for i, row in enumerate(rows)]
        resumed = run_rows(layers.batcher(), [Row(state, split, alpha) for state in states])
        for found, expected in zip(resumed, whole, strict=True):
            if expected.exit_layer > split:
                assert_same(found, expected, alpha)


@pytest.mark.parametrize("longest", [33, 65, 129, 256])
def test_padding_does_not_matter(
    longest: int, layers: CudaLayers, cuda: Classifier, texts: list[EncodedText]
) -> None:
    long = cuda.encoder.encode("fine " * (longest - 2))
    assert long.tokens == longest
    short = min(texts, key=lambda text: text.tokens)
    (alone,) = run_rows(layers.batcher(), [Row(short, 0, None)])
    padded, _ = run_rows(layers.batcher(), [Row(short, 0, None), Row(long, 0, None)])
    assert_same(padded, alone, None)


def test_more_rows_than_the_buffers_hold_are_run_in_parts(
    layers: CudaLayers,
    cuda: Classifier,
    texts: list[EncodedText],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hidden_BTH, mask_BT = cuda.embeddings.first_hidden(texts[:7])
    whole_BTH, logits_BC = layers.run_layer(1, hidden_BTH, mask_BT)
    monkeypatch.setattr(layers.batch, "max_rows", 2)
    parts_BTH, parts_BC = layers.run_layer(1, hidden_BTH, mask_BT)
    np.testing.assert_allclose(parts_BC, logits_BC, atol=FP16_CLOSE)
    np.testing.assert_allclose(parts_BTH, whole_BTH, atol=0.01)


def test_classifier_answers_as_the_batcher_does(
    cuda: Classifier, layers: CudaLayers, texts: list[EncodedText]
) -> None:
    rows, kept = texts[:8], {}
    found = cuda.classify(rows, 0.9, keep=kept)
    expected = run_rows(layers.batcher(), [Row(row, 0, 0.9) for row in rows])
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other, 0.9)
    assert [len(kept[i]) for i in range(len(rows))] == [row.tokens for row in rows]
