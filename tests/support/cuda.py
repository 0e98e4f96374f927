"""The runtime ``cuda`` on torch's CPU path: batches on the device, and rows through a batcher."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from shared.domain import Prediction
from shared.inference.cuda.batch import DeviceBatch, Source
from shared.inference.cuda.batcher import CudaBatcher
from shared.inference.layer_batcher import Row
from shared.inference.layers import softmax

BATCH = 64


def probabilities_by_exit(
    batch: DeviceBatch, rows: Sequence[Source], classes: int, layers: int
) -> NDArray[np.float32]:
    """Return ``probabilities_ENC`` of every exit, computed in batches of similar length."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found_ENC = np.empty((layers, len(rows), classes), np.float32)
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        batch.load([rows[i] for i in part])
        for layer in range(1, layers + 1):
            batch.run_layer(layer)
            found_ENC[layer - 1, part] = softmax(batch.logits()[: len(part)])
    return found_ENC


def run_rows(batcher: CudaBatcher, rows: Sequence[Row]) -> list[Prediction]:
    """Run rows to their exits, and return their predictions in order."""
    batcher.admit(rows)
    done: dict[Row, Prediction] = {}
    while not batcher.idle:
        for row, outcome in batcher.step():
            assert isinstance(outcome, Prediction)
            assert row not in done
            done[row] = outcome
    return [done[row] for row in rows]
