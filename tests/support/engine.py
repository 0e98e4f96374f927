"""An engine whose batchers run in its own threads, and a gate that holds its first layer."""

from __future__ import annotations

import threading

import pytest

from shared.inference.classifier import Classifier
from shared.inference.layer_batcher import LayerBatcher
from shared.inference.layers import Floats, Mask
from shared.tier_server.engine import Engine
from testbed.texts import sample_sentences

TEXTS = [text for text in sample_sentences() if len(text.split()) < 40]


ALPHA = 0.95


LONG_DEADLINE_MS = 60_000.0


def engine_of(
    classifier: Classifier, alpha: float | None, max_queue: int = 1000, workers: int = 1
) -> Engine:
    """Return an engine whose batchers run in its own threads, where a test can hold them."""
    batchers = [
        LayerBatcher(classifier.layers, embeddings=classifier.embeddings) for _ in range(workers)
    ]
    return Engine(classifier.encoder, batchers, alpha, max_queue)


class Gate:
    """Holds every layer until `open` is set; `reached` is set when the first one begins."""

    def __init__(self, classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self.sizes: list[int] = []
        run_layer = classifier.layers.run_layer

        def held(layer: int, hidden_BTH: Floats, mask_BT: Mask) -> tuple[Floats, Floats]:
            if layer == 1:
                self.sizes.append(len(hidden_BTH))
            self.reached.set()
            assert self.open.wait(30)
            return run_layer(layer, hidden_BTH, mask_BT)

        monkeypatch.setattr(classifier.layers, "run_layer", held)
