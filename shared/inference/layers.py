"""The layers of a bundle with their exits: whole, in part, or resumed after any layer.

Shape suffixes: B rows, T tokens, H hidden size, C classes.
"""

from __future__ import annotations

import os
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


class Layers:
    """Layers ``first`` to ``last`` of a bundle, each with its `ExitHead`; thread-safe."""

    def __init__(self, bundle: Bundle, layers: LayerRange, threads: int) -> None:
        self.range = layers
        self._bundle = bundle
        self._threads = threads
        self._sessions = {
            layer: _session(bundle, layer, threads)
            for layer in range(layers.first, layers.last + 1)
        }

    def deepen(self, last: int) -> None:
        """Hold the layers up to ``last`` as well; what is running goes on undisturbed."""
        for layer in range(self.range.last + 1, last + 1):
            self._sessions[layer] = _session(self._bundle, layer, self._threads)
            self.range = LayerRange(self.range.first, layer)

    def run_layer(self, layer: int, hidden_BTH: Floats, mask_BT: Mask) -> tuple[Floats, Floats]:
        """Run one layer: its output ``hidden_BTH`` and its exit's ``logits_BC``."""
        hidden, logits = self._sessions[layer].run(None, {"hidden": hidden_BTH, "mask": mask_BT})
        return hidden, logits

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
        """Answer each row at its first exit with confidence C_i >= ``alpha``, else at the last.

        ``alpha`` None: no early exit. ``first`` is the layer to go on with, when ``hidden_BTH`` is
        the output of the one before; ``last`` the one to stop at (the deepest that is held), whose
        exit always answers; exits before ``first_exit`` are not asked. Rows that are done leave
        the batch; no row's answer depends on the others. ``keep`` takes the ``hidden_TH`` that
        each row left with, by its number, for whoever goes on.
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


def meets_threshold(confidence_B: Floats | float, alpha: float | None) -> NDArray[np.bool_]:
    """Whether C_i >= α, in fp32 as α was chosen; None: nothing is.

    One rule for all who ask: in fp64 an answer at α itself could leave its exit and yet escalate.
    """
    if alpha is None:
        return np.zeros_like(confidence_B, bool)
    result: NDArray[np.bool_] = np.asarray(confidence_B, np.float32) >= np.float32(alpha)
    return result


def softmax(logits_BC: Floats) -> Floats:
    """Row-wise softmax, shifted so that it cannot overflow."""
    shifted_BC = np.exp(logits_BC - logits_BC.max(1, keepdims=True))
    result: Floats = shifted_BC / shifted_BC.sum(1, keepdims=True)
    return result


def prediction_of(probabilities_C: Sequence[float] | Floats, layer: int) -> Prediction:
    values = tuple(float(value) for value in probabilities_C)
    best = int(np.argmax(values))
    return Prediction(best, values, values[best], layer)


def _runtime() -> Any:
    """onnxruntime, imported late: from 1.29 it reports its use to its maker unless told not to."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def _session(bundle: Bundle, layer: int, threads: int) -> Any:
    ort = _runtime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # idle threads of one layer must not spin on the cores that another layer needs
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    file = bundle.path / layer_file(layer)
    try:
        return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own kinds without a common base
        raise BundleError(
            f"bundle: {file} cannot be run ({type(error).__name__}); export it again"
        ) from None
