"""Unit tests run a tier's layers in threads, which start fast and which a test can pause.

`test_process_batcher` and the tests that start a real tier cover the worker processes.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from shared.bundle.loading import Bundle
from shared.domain import LayerRange
from shared.inference.classifier import Classifier
from shared.inference.devices import ComputeDevice
from shared.inference.layer_batcher import LayerBatcher


def start_threads(
    bundle: Bundle, layers: LayerRange, devices: Sequence[ComputeDevice]
) -> list[LayerBatcher]:
    """Replace `shared.inference.process_batcher.start_processes` by batchers in this process."""
    classifier = Classifier(bundle, layers)
    return [LayerBatcher(classifier.layers, embeddings=classifier.embeddings) for _ in devices]


@pytest.fixture(autouse=True)
def layers_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.tier_server.service.start_processes", start_threads)
