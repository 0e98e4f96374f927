"""Classifier of a bundle: tokenizer, embeddings and layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shared.bundle.correctness_heads import NEW_ROUTER
from shared.bundle.loading import Bundle
from shared.bundle.manifest import EMBEDDINGS, TOKENIZER
from shared.domain import LayerRange, Prediction
from shared.errors import BundleError
from shared.inference.devices import CPU, ComputeDevice
from shared.inference.embeddings import Embeddings
from shared.inference.layers import Floats, LayerRuntime, Layers
from shared.inference.tokenizer import EncodedText, TextEncoder


class Classifier:
    """Layers 1 to ``layers.last`` of a bundle, from text to prediction. Thread-safe."""

    def __init__(
        self, bundle: Bundle, layers: LayerRange, threads: int = 1, device: ComputeDevice = CPU
    ) -> None:
        self.bundle = bundle
        self.encoder = TextEncoder(bundle.path / TOKENIZER, bundle.manifest.max_tokens)
        self.embeddings = Embeddings(bundle.path / EMBEDDINGS)
        self.embeddings.check(bundle.manifest.hidden_size, bundle.manifest.max_tokens)
        size = bundle.router()[0].shape[1]
        if size != self.embeddings.size:
            raise BundleError(
                f"bundle: the router in {bundle.path} is for embeddings of {size} numbers, but the "
                f"embeddings have {self.embeddings.size}; {NEW_ROUTER}"
            )
        if self.encoder.vocabulary > self.embeddings.vocabulary:
            raise BundleError(
                f"bundle: {bundle.path / TOKENIZER} has {self.encoder.vocabulary:,} tokens, but "
                f"the embeddings have {self.embeddings.vocabulary:,}; export the run again"
            )
        self.layers = make_layers(bundle, layers, threads, device)
        self.layers.check()

    def classify(
        self,
        rows: Sequence[EncodedText],
        alpha: float | None,
        last: int | None = None,
        first_exit: int = 1,
        keep: dict[int, Floats] | None = None,
    ) -> list[Prediction]:
        """Answer each row at its first exit with confidence >= ``alpha`` (None: at the last one).

        For ``last``, ``first_exit`` and ``keep`` see `Layers.classify`.
        """
        hidden_BTH, mask_BT = self.embeddings.first_hidden(rows)
        return self.layers.classify(
            hidden_BTH, mask_BT, alpha, last=last, first_exit=first_exit, keep=keep
        )

    def resume(self, hidden_TH: Floats, after: int, alpha: float | None) -> Prediction:
        """Answer one text from the output of layer ``after``, starting with layer ``after`` + 1."""
        mask_BT = np.ones((1, len(hidden_TH)), np.int32)
        hidden_BTH = np.ascontiguousarray(hidden_TH)[None]
        return self.layers.classify(hidden_BTH, mask_BT, alpha, first=after + 1)[0]

    def warm_up(self) -> None:
        """Run one short text, so that lazy allocations do not slow down the first request."""
        self.classify([self.short_text()], None)

    def short_text(self) -> EncodedText:
        """Return a short text, or a pair where the bundle's task has pairs."""
        return self.encoder.encode("ready", "ready" if self.bundle.manifest.pairs else None)


def make_layers(
    bundle: Bundle, layers: LayerRange, threads: int, device: ComputeDevice
) -> LayerRuntime:
    """Return layers on a device; torch is imported for the runtime ``cuda`` only."""
    if device.runtime == "onnx":
        return Layers(bundle, layers, threads)
    from shared.inference.cuda.layers import CudaLayers

    return CudaLayers(bundle, layers, device, threads)
