"""A bundle made ready to answer: tokens, embeddings, layers."""

from __future__ import annotations

from collections.abc import Sequence

from shared.bundle import EMBEDDINGS, TOKENIZER, Bundle
from shared.domain import LayerRange, Prediction
from shared.runtime.embeddings import Embeddings
from shared.runtime.encoding import EncodedText, TextEncoder
from shared.runtime.layers import Layers


class Classifier:
    """Layers 1 to ``layers.last`` of a bundle, from text to prediction; thread-safe."""

    def __init__(self, bundle: Bundle, layers: LayerRange, threads: int = 1) -> None:
        self.bundle = bundle
        self.encoder = TextEncoder(bundle.path / TOKENIZER, bundle.manifest.max_tokens)
        self.embeddings = Embeddings(bundle.path / EMBEDDINGS)
        self.layers = Layers(bundle, layers, threads)

    def classify(
        self,
        rows: Sequence[EncodedText],
        alpha: float | None,
        last: int | None = None,
        first_exit: int = 1,
    ) -> list[Prediction]:
        """Answer each row at its first exit with confidence >= ``alpha`` (None: at the last).

        ``last`` and ``first_exit`` are those of `Layers.classify`.
        """
        hidden_BTH, mask_BT = self.embeddings.first_hidden(rows)
        return self.layers.classify(hidden_BTH, mask_BT, alpha, last=last, first_exit=first_exit)

    def warm_up(self) -> None:
        """Run one short text, so that the first request does not pay for lazy allocations."""
        self.classify([self.encoder.encode("ready", "ready" if self._pairs else None)], None)

    @property
    def _pairs(self) -> bool:
        return self.bundle.manifest.pairs
