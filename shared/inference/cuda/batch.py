"""The batch on a device: its states stay there from the first layer to the last.

Shape suffixes: B rows, T tokens, H hidden size, C classes. Rows and tokens are rounded up to
buckets; rows beyond the batch have one token and are ignored.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shared.bundle.loading import Bundle
from shared.bundle.manifest import EMBEDDINGS
from shared.inference.buckets import ROWS, bucket_of, most_rows, width_buckets
from shared.inference.cuda.graphs import DirectSteps, GraphSteps, Shape, Steps
from shared.inference.cuda.layer import DeviceEmbeddings, DeviceLayer, Precision
from shared.inference.cuda.weights import read_weights
from shared.inference.devices import ComputeDevice
from shared.inference.tokenizer import EncodedText, TokenIds

Floats = NDArray[np.float32]
Source = EncodedText | TokenIds | Floats
"""A tokenised text, or ``hidden_TH``, the output of a layer."""


class DeviceBatch:
    """Layers on a device and the buffers of one batch. Hold ``lock`` while a batch is in it."""

    def __init__(
        self, bundle: Bundle, device: ComputeDevice, precision: Precision | None = None
    ) -> None:
        self.lock = threading.RLock()
        self._bundle = bundle
        self._device = torch.device(device.name)
        self._precision = precision or Precision(self._device)
        manifest = bundle.manifest
        self._hidden_size, self._classes = manifest.hidden_size, len(manifest.labels)
        self.widths = width_buckets(manifest.max_tokens)
        self.max_rows = device.max_rows
        self.max_tokens = max(device.max_tokens, self.widths[-1])
        self._layers: dict[int, DeviceLayer] = {}
        self._embeddings = DeviceEmbeddings(bundle.path / EMBEDDINGS, self._precision)
        self._hidden = self._buffer(self.max_tokens * self._hidden_size, self._precision.dtype)
        self._ids = self._buffer(2 * self.max_tokens, torch.int32)
        self._lengths = self._buffer(self.max_rows, torch.int32)
        self._logits = self._buffer(self.max_rows * self._classes, torch.float32)
        self._steps: Steps = DirectSteps()
        if self.captures:
            with torch.cuda.device(self._device):
                self._steps = GraphSteps()
        self.rows = self.width = 1

    def _buffer(self, size: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(size, dtype=dtype, device=self._device)

    @property
    def captures(self) -> bool:
        """True on a GPU, where each shape is captured once as a graph."""
        return self._device.type == "cuda"

    def add_layer(self, layer: int) -> None:
        """Load a layer's weights; raises `BundleError`."""
        self._layers[layer] = DeviceLayer(read_weights(self._bundle, layer), self._precision)

    def most_rows(self, tokens: int) -> int:
        """Return how many rows of at most ``tokens`` tokens fit the buffers."""
        return most_rows(bucket_of(tokens, self.widths), self.max_rows, self.max_tokens)

    @torch.inference_mode()
    def load(self, sources: Sequence[Source]) -> None:
        """Replace the batch by rows of texts, or by rows of hidden states."""
        lengths = [len(source) for source in sources]
        self.rows = bucket_of(len(sources), ROWS)
        self.width = bucket_of(max(lengths), self.widths)
        B, T = self.rows, self.width
        lengths_B = np.ones(B, np.int32)
        lengths_B[: len(sources)] = lengths
        self._lengths[:B].copy_(torch.from_numpy(lengths_B))
        texts = [source for source in sources if not isinstance(source, np.ndarray)]
        if texts:
            ids_2BT = np.zeros((2, B, T), np.int32)
            for i, text in enumerate(texts):
                ids_2BT[0, i, : len(text)] = text.ids_T
                ids_2BT[1, i, : len(text)] = text.type_ids_T
            self._ids[: 2 * B * T].copy_(torch.from_numpy(ids_2BT.reshape(-1)))
            self._run(0)
            return
        hidden_BTH = np.zeros((B, T, self._hidden_size), np.float32)
        states = [source for source in sources if isinstance(source, np.ndarray)]
        for i, (hidden_TH, length) in enumerate(zip(states, lengths, strict=True)):
            hidden_BTH[i, :length] = hidden_TH
        self._state.copy_(self._precision.stored(torch.from_numpy(hidden_BTH)))

    def run_layer(self, layer: int) -> None:
        """Run a layer on the batch; on a GPU this returns before it has ended."""
        self._run(layer)

    @torch.inference_mode()
    def logits(self) -> Floats:
        """Return ``logits_BC`` of the last layer run: the one copy to the host for an exit."""
        count = self.rows * self._classes
        # on torch's CPU path, cpu() is no copy but the buffer itself
        logits_BC: Floats = self._logits[:count].cpu().numpy().copy()
        return logits_BC.reshape(self.rows, self._classes)

    @torch.inference_mode()
    def hidden(self) -> Floats:
        """Return ``hidden_BTH`` of the last layer run."""
        hidden_BTH: Floats = self._state.float().cpu().numpy().copy()
        return hidden_BTH

    @torch.inference_mode()
    def keep(self, positions: Sequence[int], tokens: int) -> bool:
        """Keep the rows at these positions, in this order, of at most ``tokens`` tokens each.

        Return False, and keep all, if they need the same buckets: then nothing would be saved.
        """
        B, T = bucket_of(len(positions), ROWS), bucket_of(tokens, self.widths)
        if (self.rows, self.width) == (B, T):
            return False
        index_B = np.zeros(B, np.int64)
        index_B[: len(positions)] = positions
        index_B[len(positions) :] = positions[0]
        index = torch.from_numpy(index_B).to(self._device)
        hidden = self._state[:, :T].index_select(0, index)
        lengths = self._lengths[: self.rows].index_select(0, index)
        self.rows, self.width = B, T
        self._state.copy_(hidden)
        self._lengths[:B].copy_(lengths)
        return True

    @property
    def _state(self) -> Tensor:
        """The buffer of the hidden states in the batch's shape."""
        shape = self.rows, self.width, self._hidden_size
        return self._hidden[: self.rows * self.width * self._hidden_size].view(shape)

    @torch.inference_mode()
    def _run(self, step: int) -> None:
        shape, state = Shape(step, self.rows, self.width), self._state
        if not self.captures:
            self._steps.run(shape, lambda: self._compute(shape), state)
            return
        with torch.cuda.device(self._device):  # a thread of its own begins with the first GPU
            self._steps.run(shape, lambda: self._compute(shape), state)

    def _compute(self, shape: Shape) -> None:
        """Run a step on the buffers, in place."""
        step, B, T = shape
        state_BTH = self._hidden[: B * T * self._hidden_size].view(B, T, self._hidden_size)
        if step == 0:
            ids_BT, types_BT = self._ids[: 2 * B * T].view(2, B, T)
            state_BTH.copy_(self._embeddings.run(ids_BT, types_BT))
            return
        position_T = torch.arange(T, device=self._device)
        mask_BT = position_T < self._lengths[:B, None]
        hidden_BTH, logits_BC = self._layers[step].run(state_BTH, mask_BT)
        state_BTH.copy_(hidden_BTH)
        self._logits[: B * self._classes].view(B, self._classes).copy_(logits_BC)
