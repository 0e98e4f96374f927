"""Unit tests run a tier's layers in their own threads, where they can hold them, and start fast.

The processes have `test_flow_process`, and every test that starts a real tier.
"""

from __future__ import annotations

import pytest

from shared.bundle.loading import Bundle
from shared.domain import LayerRange
from shared.inference.classifier import Classifier
from shared.inference.layer_batcher import LayerBatcher


def start_threads(bundle: Bundle, layers: LayerRange, count: int) -> list[LayerBatcher]:
    """What `shared.inference.process_batcher.start_processes` does, without processes."""
    classifier = Classifier(bundle, layers)
    return [LayerBatcher(classifier.layers, embeddings=classifier.embeddings) for _ in range(count)]


@pytest.fixture(autouse=True)
def layers_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.tier_server.service.start_processes", start_threads)
