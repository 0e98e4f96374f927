"""Speed of the layers alone, on tokenised texts, without queue or HTTP: the upper bound of a tier.

Shape suffixes: B rows, T tokens, H hidden size.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from shared.bundle.loading import load_bundle
from shared.cpus import usable_cores
from shared.domain import InputText, LayerRange
from shared.inference.classifier import Classifier
from shared.inference.layers import Floats, Mask

BATCHES = (1, 8, 32)


def layers_only(
    bundle: Path, texts: Sequence[InputText], runs: int, workers: int | None = None
) -> dict[str, float]:
    """Return texts a second through all layers at each of `BATCHES`, as medians of ``runs``.

    Texts are sorted by length. Each core has a thread that takes batch after batch, as the workers
    of a tier do.
    """
    loaded = load_bundle(bundle)
    classifier = Classifier(loaded, LayerRange(1, loaded.manifest.layers))
    classifier.warm_up()
    rows = sorted(
        (classifier.encoder.encode(text.text, text.pair) for text in texts),
        key=lambda row: row.tokens,
    )
    count = workers or usable_cores()
    rates_by_batch: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    for _ in range(runs):
        for batch in BATCHES:
            parts = [
                classifier.embeddings.first_hidden(rows[i : i + batch])
                for i in range(0, len(rows), batch)
            ]
            run_all = partial(_run_all, classifier, parts)
            threads = [threading.Thread(target=run_all) for _ in range(count)]
            started = time.perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            rates_by_batch[batch].append(len(rows) / (time.perf_counter() - started))
    return {
        str(batch): round(statistics.median(rates), 1) for batch, rates in rates_by_batch.items()
    }


def _run_all(classifier: Classifier, parts: list[tuple[Floats, Mask]]) -> None:
    """Run batches until none is left; a list's pop is atomic."""
    while True:
        try:
            hidden_BTH, mask_BT = parts.pop()
        except IndexError:
            return
        for layer in range(1, classifier.layers.range.last + 1):
            hidden_BTH, _ = classifier.layers.run_layer(layer, hidden_BTH, mask_BT)
