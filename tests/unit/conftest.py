"""Unit tests run a tier's layers in their own threads, where they can hold them, and start fast.

The processes have `test_flow_process`, and every test that starts a real tier.
"""

from __future__ import annotations

import pytest

from shared.bundle import Bundle
from shared.domain import LayerRange
from shared.runtime.classifier import Classifier
from shared.runtime.flow import Flow


def start_threads(bundle: Bundle, layers: LayerRange, count: int) -> list[Flow]:
    """What `shared.runtime.flow_process.start_processes` does, without processes."""
    classifier = Classifier(bundle, layers)
    return [Flow(classifier.layers, embeddings=classifier.embeddings) for _ in range(count)]


@pytest.fixture(autouse=True)
def layers_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.service.tier_app.start_processes", start_threads)
