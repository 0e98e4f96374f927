"""The shipped bundle gives equal answers for any split, batch and padding; its card is right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shared.bundle.loading import Bundle
from shared.domain import LayerRange
from shared.inference.classifier import Classifier
from shared.inference.layers import Layers, softmax
from testbed.texts import sample_sentences


@pytest.fixture(scope="module")
def whole(bundle: Bundle) -> Classifier:
    return Classifier(bundle, LayerRange(1, bundle.manifest.layers), threads=2)


def test_resuming_after_any_layer_gives_the_same_answer(bundle: Bundle, whole: Classifier) -> None:
    rows = [whole.encoder.encode(text) for text in sample_sentences()[:12]]
    expected = whole.classify(rows, alpha=None)
    hidden_BTH, mask_BT = whole.embeddings.first_hidden(rows)
    last = bundle.manifest.layers
    for split in range(1, last):
        head = Layers(bundle, LayerRange(1, split), threads=1)
        tail = Layers(bundle, LayerRange(split + 1, last), threads=1)
        hidden = hidden_BTH
        for layer in range(1, split + 1):
            hidden, _ = head.run_layer(layer, hidden, mask_BT)
        resumed = tail.classify(hidden, mask_BT, alpha=None)
        for one, other in zip(resumed, expected, strict=True):
            assert one.label_index == other.label_index
            assert one.exit_layer == other.exit_layer == last
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


@pytest.mark.parametrize("alpha", [None, 0.6, 0.9, 0.99])
def test_answer_is_the_same_alone_and_in_any_batch(alpha: float | None, whole: Classifier) -> None:
    texts = sample_sentences()
    rows = [whole.encoder.encode(text) for text in texts]
    alone = [whole.classify([row], alpha)[0] for row in rows]
    order = np.random.default_rng(3).permutation(len(rows))
    together = whole.classify([rows[i] for i in order], alpha)
    for position, i in enumerate(order):
        assert together[position].label_index == alone[i].label_index, texts[i]
        assert together[position].exit_layer == alone[i].exit_layer, texts[i]
        np.testing.assert_allclose(
            together[position].probabilities, alone[i].probabilities, atol=1e-4
        )
    if alpha == 0.9:
        assert len({prediction.exit_layer for prediction in alone}) >= 3


@pytest.mark.parametrize("alpha", [None, 0.6, 0.9, 0.99])
@pytest.mark.parametrize(("first_exit", "last"), [(1, 1), (1, 2), (2, 2), (3, 5), (6, 6), (1, 6)])
def test_first_exit_and_last_layer_are_respected(
    first_exit: int, last: int, alpha: float | None, whole: Classifier
) -> None:
    """The answer equals that of running the layers one by one, alone and in a batch."""
    rows = [whole.encoder.encode(text) for text in sample_sentences()[:20]]
    together = whole.classify(rows, alpha, last, first_exit)
    for row, in_batch in zip(rows, together, strict=True):
        (alone,) = whole.classify([row], alpha, last, first_exit)
        hidden_BTH, mask_BT = whole.embeddings.first_hidden([row])
        for layer in range(1, last + 1):
            hidden_BTH, logits_BC = whole.layers.run_layer(layer, hidden_BTH, mask_BT)
            by_hand = softmax(logits_BC)[0]
            may_exit = alpha is not None and layer >= first_exit
            if layer == last or (may_exit and by_hand.max() >= alpha):
                break
        assert alone.exit_layer == in_batch.exit_layer == layer
        assert alone.probabilities == tuple(by_hand.tolist())
        assert alone.label_index == in_batch.label_index == by_hand.argmax()


def test_only_loaded_layers_can_be_run(bundle: Bundle, whole: Classifier) -> None:
    few = Classifier(bundle, LayerRange(1, 2), threads=2)
    row = few.encoder.encode("it almost works, and that is what hurts")
    for last in (0, 3):
        with pytest.raises(ValueError, match="cannot be run"):
            few.classify([row], None, last)
    assert few.classify([row], None)[0].exit_layer == 2
    few.layers.deepen(4)
    few.layers.deepen(3)
    assert few.layers.range == LayerRange(1, 4)
    assert few.classify([row], None) == whole.classify([row], None, 4)


def test_card_has_the_measured_accuracies(bundle: Bundle, whole: Classifier, glue: Path) -> None:
    lines = (glue / "sst2" / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    examples = [json.loads(line) for line in lines]
    rows = [whole.encoder.encode(example["sentence"]) for example in examples]
    labels = np.array([example["label"] for example in examples])
    order = sorted(range(len(rows)), key=lambda i: rows[i].tokens)
    right_EN = np.empty((bundle.manifest.layers, len(rows)), bool)
    for start in range(0, len(order), 64):
        batch = order[start : start + 64]
        hidden_BTH, mask_BT = whole.embeddings.first_hidden([rows[i] for i in batch])
        for layer in range(1, bundle.manifest.layers + 1):
            hidden_BTH, logits_BC = whole.layers.run_layer(layer, hidden_BTH, mask_BT)
            right_EN[layer - 1, batch] = softmax(logits_BC).argmax(1) == labels[batch]
    table = bundle.manifest.accuracy["reported"]
    assert table["examples"] == len(rows)
    measured = 100 * right_EN.mean(1)
    # another CPU may round up to three of the 872 rows differently
    np.testing.assert_allclose(measured, table["shipped"]["accuracy"], atol=0.35)
    for full, shipped in zip(table["fp32"]["accuracy"], measured, strict=True):
        assert full - shipped <= 0.5 + 0.35
    assert f"{table['shipped']['accuracy'][-1]:.2f}" in (bundle.path / "README.md").read_text()


def test_bundle_has_at_most_30_megabytes_and_no_pickle(bundle: Bundle) -> None:
    files = [file for file in bundle.path.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 30_000_000
    assert {file.suffix for file in files} <= {".json", ".onnx", ".npz", ".safetensors", ".md"}
