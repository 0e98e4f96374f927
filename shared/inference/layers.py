"""Runs the layers of a bundle with their exit heads, from the start or resumed after a layer.

Shape suffixes: B rows, T tokens, H hidden size, C classes.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.bundle.loading import Bundle
from shared.bundle.manifest import layer_file
from shared.domain import LayerRange, Prediction
from shared.errors import BundleError

Floats = NDArray[np.float32]
Mask = NDArray[np.int32]


class LayerRuntime(ABC):
    """Runs a range of a bundle's layers, each with its exit head. Thread-safe."""

    def __init__(self, bundle: Bundle, layers: LayerRange) -> None:
        self.range = layers
        self._bundle = bundle

    @abstractmethod
    def _load(self, layer: int) -> None:
        """Load a layer; raises `BundleError`."""

    @abstractmethod
    def run_layer(self, layer: int, hidden_BTH: Floats, mask_BT: Mask) -> tuple[Floats, Floats]:
        """Run one layer; return its output ``hidden_BTH`` and its exit head's ``logits_BC``."""

    def deepen(self, last: int) -> None:
        """Load the layers up to ``last`` as well; running calls are not affected.

        Raises `BundleError` if their files have changed since the bundle was loaded.
        """
        for layer in range(self.range.last + 1, last + 1):
            self._bundle.check_file(layer_file(layer))
            self._load(layer)
            self._check(layer)
            self.range = LayerRange(self.range.first, layer)

    def check(self) -> None:
        """Raise `BundleError` unless each layer runs and fits to the manifest."""
        for layer in range(self.range.first, self.range.last + 1):
            self._check(layer)

    def _check(self, layer: int) -> None:
        """Run a layer on one token, and check its outputs."""
        manifest = self._bundle.manifest
        token_BTH = np.linspace(-1, 1, manifest.hidden_size, dtype=np.float32)[None, None]
        expected = [(1, 1, manifest.hidden_size), (1, len(manifest.labels))]
        problem: str | None = None
        try:
            outputs = self.run_layer(layer, token_BTH, np.ones((1, 1), np.int32))
            shapes = [np.shape(output) for output in outputs]
            if shapes != expected:
                problem = f"its outputs have the shapes {shapes} instead of {expected}"
            elif any(output.dtype != np.float32 for output in outputs):
                problem = "its outputs are not of type float32"
            elif not all(np.isfinite(output).all() for output in outputs):
                problem = "its outputs are not finite"
        except Exception as error:  # onnxruntime's exceptions have no common base class
            problem = type(error).__name__
        if problem is not None:
            raise cannot_run(self._bundle, layer, problem)

    def classify(
        self,
        hidden_BTH: Floats,
        mask_BT: Mask,
        alpha: float | None,
        first: int | None = None,
        last: int | None = None,
        first_exit: int = 1,
        keep: dict[int, Floats] | None = None,
    ) -> list[Prediction]:
        """Answer each row at its first exit with confidence C_i >= ``alpha``, else at the last one.

        With ``alpha`` None there is no early exit. ``first`` is the first layer to run, and
        ``hidden_BTH`` the output of the layer before it. ``last`` is the layer at which every
        remaining row exits (default: the deepest one loaded). Exits before ``first_exit`` are
        skipped. Rows that exit leave the batch; a row's answer does not depend on the others.
        ``keep`` receives the ``hidden_TH`` with which each row exited, by row number, so that
        another tier can resume from it.
        """
        first = self.range.first if first is None else first
        last = self.range.last if last is None else last
        if not self.range.first <= first <= last <= self.range.last:
            raise ValueError(f"layers {first}..{last} of {self.range} cannot be run")
        done: list[Prediction | None] = [None] * len(hidden_BTH)
        rows = np.arange(len(hidden_BTH))
        for layer in range(first, last + 1):
            hidden_BTH, logits_BC = self.run_layer(layer, hidden_BTH, mask_BT)
            if layer < last and (alpha is None or layer < first_exit):
                continue
            probabilities_BC = softmax(logits_BC)
            confidence_B = probabilities_BC.max(1)
            leaves_B = (
                np.full(len(rows), True) if layer == last else meets_threshold(confidence_B, alpha)
            )
            for i in np.flatnonzero(leaves_B):
                done[rows[i]] = prediction_of(probabilities_BC[i], layer)
                if keep is not None:
                    keep[int(rows[i])] = hidden_BTH[i, : int(mask_BT[i].sum())]
            if leaves_B.all():
                break
            if leaves_B.any():
                stays_B = ~leaves_B
                rows = rows[stays_B]
                mask_BT = mask_BT[stays_B]
                width = int(mask_BT.sum(1).max())
                hidden_BTH = np.ascontiguousarray(hidden_BTH[stays_B, :width])
                mask_BT = np.ascontiguousarray(mask_BT[:, :width])
        return [prediction for prediction in done if prediction is not None]


class Layers(LayerRuntime):
    """Layers run by onnxruntime on the CPU, each with ``threads`` threads."""

    def __init__(self, bundle: Bundle, layers: LayerRange, threads: int) -> None:
        super().__init__(bundle, layers)
        self._threads = threads
        self._sessions: dict[int, Any] = {}
        for layer in range(layers.first, layers.last + 1):
            self._load(layer)

    def _load(self, layer: int) -> None:
        self._sessions[layer] = _session(self._bundle, layer, self._threads)

    def run_layer(self, layer: int, hidden_BTH: Floats, mask_BT: Mask) -> tuple[Floats, Floats]:
        """Run one layer; return its output ``hidden_BTH`` and its exit head's ``logits_BC``."""
        hidden, logits = self._sessions[layer].run(None, {"hidden": hidden_BTH, "mask": mask_BT})
        return hidden, logits


def meets_threshold(confidence_B: Floats | float, alpha: float | None) -> NDArray[np.bool_]:
    """Return whether C_i >= α, compared in fp32; False everywhere if ``alpha`` is None.

    All callers must use this function: compared in fp64, an answer at exactly α could exit and
    still escalate.
    """
    if alpha is None:
        return np.zeros_like(confidence_B, bool)
    result: NDArray[np.bool_] = np.asarray(confidence_B, np.float32) >= np.float32(alpha)
    return result


def softmax(logits_BC: Floats) -> Floats:
    """Return the row-wise softmax, shifted by the maximum to avoid overflow."""
    shifted_BC = np.exp(logits_BC - logits_BC.max(1, keepdims=True))
    result: Floats = shifted_BC / shifted_BC.sum(1, keepdims=True)
    return result


def prediction_of(probabilities_C: Sequence[float] | Floats, layer: int) -> Prediction:
    """Return the prediction of one row that exits after ``layer``."""
    values = tuple(float(value) for value in probabilities_C)
    best = int(np.argmax(values))
    return Prediction(best, values, values[best], layer)


def _runtime() -> Any:
    """Import onnxruntime on first use; from 1.29 it sends telemetry unless this variable is set."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def _session(bundle: Bundle, layer: int, threads: int) -> Any:
    ort = _runtime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # idle threads of one layer must not spin on cores that another layer needs
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    file = bundle.path / layer_file(layer)
    try:
        return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base class
        raise cannot_run(bundle, layer, type(error).__name__) from None


def cannot_run(bundle: Bundle, layer: int, problem: str) -> BundleError:
    """Return the error for a layer that does not run."""
    return BundleError(
        f"bundle: {bundle.path / layer_file(layer)} cannot be run ({problem}); export the bundle's "
        "run again with this version of dimee"
    )
