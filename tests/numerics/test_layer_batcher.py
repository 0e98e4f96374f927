"""Batched early exit: a row's answer and exit are the same alone and in a batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.bundle.loading import Bundle, load_bundle
from shared.domain import LayerRange, Prediction
from shared.inference.classifier import Classifier
from shared.inference.layer_batcher import LayerBatcher, Row
from shared.inference.layers import Floats, Layers, Mask
from testbed.texts import sample_sentences
from tests.support.paths import BUNDLE

CLOSE = 0.02
"""Largest difference of a probability. Padding changes the last bits of fp32 sums in attention, and
rounding to 8 bits may then increase the difference to this much."""


@pytest.fixture(scope="module")
def whole(bundle: Bundle) -> Classifier:
    return Classifier(bundle, LayerRange(1, bundle.manifest.layers))


SAMPLES = sample_sentences()
CLASSIFIER = Classifier(load_bundle(BUNDLE), LayerRange(1, 6))
STATES = [
    CLASSIFIER.embeddings.first_hidden([CLASSIFIER.encoder.encode(text)])[0][0] for text in SAMPLES
]


def alone(state: Floats, alpha: float | None) -> Prediction:
    mask_BT = np.ones((1, len(state)), np.int32)
    return CLASSIFIER.layers.classify(state[None], mask_BT, alpha)[0]


def run(batcher: LayerBatcher, arrivals: list[list[Row]]) -> dict[Row, Prediction]:
    """Step until all rows are finished; admit the next ones whenever the batcher accepts rows."""
    arrivals, done = list(arrivals), {}
    while arrivals or not batcher.idle:
        if arrivals and batcher.accepts_rows:
            batcher.admit(arrivals.pop(0))
        for row, outcome in batcher.step():
            assert isinstance(outcome, Prediction)
            assert row not in done
            done[row] = outcome
    return done


@settings(max_examples=40, deadline=None)
@given(
    indices=st.lists(st.integers(0, len(SAMPLES) - 1), min_size=1, max_size=40),
    alphas=st.lists(st.sampled_from([None, 0.7, 0.95, 0.999]), min_size=1, max_size=5),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    max_tokens=st.sampled_from([48, 200, 2048]),
)
def test_row_exits_at_the_same_layer_alone_and_in_a_batch(
    indices: list[int], alphas: list[float | None], sizes: list[int], max_tokens: int
) -> None:
    rows = [Row(STATES[i], 0, alphas[n % len(alphas)]) for n, i in enumerate(indices)]
    arrivals, start = [], 0
    for n in range(len(rows)):
        if start >= len(rows):
            break
        size = sizes[n % len(sizes)]
        arrivals.append(rows[start : start + size])
        start += size
    done = run(LayerBatcher(CLASSIFIER.layers, max_rows=8, max_tokens=max_tokens), arrivals)
    assert set(done) == set(rows)
    for row, i in zip(rows, indices, strict=True):
        expected = alone(STATES[i], row.alpha)
        actual = done[row]
        at_alpha = row.alpha is not None and abs(expected.confidence - row.alpha) < CLOSE
        if not at_alpha:
            assert actual.exit_layer == expected.exit_layer
        if actual.exit_layer == expected.exit_layer and expected.confidence > 0.5 + CLOSE:
            assert actual.label_index == expected.label_index
            assert actual.probabilities == pytest.approx(expected.probabilities, abs=CLOSE)


def test_resumed_rows_join_the_others(whole: Classifier) -> None:
    state = STATES[0]
    mask_BT = np.ones((1, len(state)), np.int32)
    after_2 = state[None]
    for layer in (1, 2):
        after_2, _ = whole.layers.run_layer(layer, after_2, mask_BT)
    rows = [Row(after_2[0], 2, None), *(Row(hidden_TH, 0, None) for hidden_TH in STATES[:5])]
    done = run(LayerBatcher(whole.layers), [rows])
    expected = alone(state, None)
    for row in rows[:2]:
        assert done[row].exit_layer == 6
        assert done[row].probabilities == pytest.approx(expected.probabilities, abs=CLOSE)


def test_small_group_pauses_for_new_rows_once(whole: Classifier) -> None:
    """New rows catch up with a small group, which does not pause a second time."""
    batcher = LayerBatcher(whole.layers, max_rows=8, max_tokens=400)
    first = Row(STATES[0], 0, None)
    batcher.admit([first])
    batcher.step()
    assert batcher.accepts_rows
    batcher.admit([Row(STATES[1], 0, None)])
    assert not batcher.accepts_rows
    done: list[Row] = []
    layers_run = 0
    while not batcher.idle:
        done += [row for row, _ in batcher.step()]
        layers_run += 1
        assert not batcher.accepts_rows or batcher.idle
    assert layers_run == 6  # one to catch up, then five together
    assert first in done


def test_dropped_rows_use_no_more_time(whole: Classifier) -> None:
    batcher = LayerBatcher(whole.layers)
    dropped, remaining = Row(STATES[0], 0, None), Row(STATES[1], 0, None)
    batcher.admit([dropped, remaining])
    batcher.step()
    batcher.drop({dropped})
    spent = dropped.compute_ms
    done = [row for _ in range(5) for row, _ in batcher.step()]
    assert done == [remaining]
    assert batcher.idle
    assert dropped.compute_ms == spent > 0
    batcher.admit([last := Row(STATES[2], 0, None)])
    batcher.drop({last})
    assert batcher.idle


class FailingLayers(Layers):
    """Layers that fail for a text of a certain length, as a damaged tensor would."""

    def __init__(self, layers: Layers, length: int) -> None:
        self.range = layers.range
        self._layers, self._length = layers, length

    def run_layer(self, layer: int, hidden_BTH: Floats, mask_BT: Mask) -> tuple[Floats, Floats]:
        if layer == 3 and (mask_BT.sum(1) == self._length).any():
            raise RuntimeError("bad tensor")
        return self._layers.run_layer(layer, hidden_BTH, mask_BT)


def test_failing_row_fails_alone(whole: Classifier) -> None:
    length = len(STATES[0])
    bad = Row(STATES[0], 0, None)
    good = [Row(state, 0, None) for state in STATES[1:8] if len(state) != length]
    batcher = LayerBatcher(FailingLayers(whole.layers, length))
    batcher.admit([bad, *good])
    outcomes = {}
    while not batcher.idle:
        outcomes |= dict(batcher.step())
    assert isinstance(outcomes[bad], RuntimeError)
    assert all(isinstance(outcomes[row], Prediction) for row in good)
