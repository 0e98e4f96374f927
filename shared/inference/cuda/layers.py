"""Runs the layers of a bundle with torch: `LayerRuntime` on a GPU.

Shape suffixes: B rows, T tokens, H hidden size, C classes.
"""

from __future__ import annotations

import numpy as np
import torch

from shared.bundle.loading import Bundle
from shared.domain import LayerRange
from shared.inference.cuda.batch import DeviceBatch
from shared.inference.cuda.batcher import CudaBatcher
from shared.inference.devices import ComputeDevice
from shared.inference.layers import Floats, LayerRuntime, Layers, Mask, cannot_run

PROBE_ROWS, PROBE_TOKENS = 2, 8
MAX_DISTANCE = 0.1
"""Largest relative distance of a layer's output from onnxruntime's at the check: about ten times
what 8-bit activations cause, and far less than a weight read wrongly does."""


class CudaLayers(LayerRuntime):
    """A range of a bundle's layers on one device.

    `run_layer` copies states from and to the host. A tier uses a `batcher`, whose states stay on
    the device. ``threads`` are those of torch in the whole process.
    """

    def __init__(
        self, bundle: Bundle, layers: LayerRange, device: ComputeDevice, threads: int
    ) -> None:
        super().__init__(bundle, layers)
        torch.set_num_threads(threads)
        # sums in fp16 would depend on how a product is split, and thus on the batch's shape
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        self.batch = DeviceBatch(bundle, device)
        for layer in range(layers.first, layers.last + 1):
            self._load(layer)

    def batcher(self) -> CudaBatcher:
        """Return a batcher of these layers; there may be one, and `run_layer` disturbs it."""
        return CudaBatcher(self.batch, self.range.last)

    def _load(self, layer: int) -> None:
        self.batch.add_layer(layer)

    def run_layer(self, layer: int, hidden_BTH: Floats, mask_BT: Mask) -> tuple[Floats, Floats]:
        """Run one layer; return its output ``hidden_BTH`` and its exit head's ``logits_BC``.

        The output is zero for padding.
        """
        lengths_B = mask_BT.sum(1)
        out_BTH = np.zeros_like(hidden_BTH)
        logits = []
        most = self.batch.most_rows(int(lengths_B.max()))
        with self.batch.lock:
            for start in range(0, len(hidden_BTH), most):
                rows = range(start, min(start + most, len(hidden_BTH)))
                self.batch.load([hidden_BTH[i, : lengths_B[i]] for i in rows])
                self.batch.run_layer(layer)
                logits.append(self.batch.logits()[: len(rows)])
                for i, hidden_TH in zip(rows, self.batch.hidden(), strict=False):
                    out_BTH[i, : lengths_B[i]] = hidden_TH[: lengths_B[i]]
        return out_BTH, np.concatenate(logits)

    def _check(self, layer: int) -> None:
        """Check a layer's outputs, and that they are those of onnxruntime but for rounding."""
        super()._check(layer)
        size = PROBE_ROWS, PROBE_TOKENS, self._bundle.manifest.hidden_size
        hidden_BTH = np.random.default_rng(layer).standard_normal(size, np.float32)
        mask_BT = np.ones(size[:2], np.int32)
        mask_BT[1, PROBE_TOKENS // 2 :] = 0
        reference = Layers(self._bundle, LayerRange(layer, layer), threads=1)
        for ours, theirs in zip(
            self.run_layer(layer, hidden_BTH, mask_BT),
            reference.run_layer(layer, hidden_BTH, mask_BT),
            strict=True,
        ):
            if ours.ndim == 3:
                theirs = theirs * mask_BT[..., None]
            distance = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
            if not distance <= MAX_DISTANCE:
                problem = f"its output differs by {distance:.0%} from onnxruntime's"
                raise cannot_run(self._bundle, layer, problem)
