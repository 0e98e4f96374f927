"""Weights of a layer and its exit head, read from the ONNX file of a bundle.

`lab.export.onnx_layer` defines the names of the tensors and nodes.

Shape suffixes: O outputs, I inputs, A attention heads, D distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from shared.bundle.loading import Bundle
from shared.bundle.manifest import LARGEST_FILE_BYTES, layer_file
from shared.errors import BundleError
from shared.files import read_limited

Floats = NDArray[np.float32]
ACTIVATIONS = {"BiasGelu": "gelu", "FastGelu": "gelu-tanh", "Relu": "relu"}
"""Activation of the feed-forward part by its ONNX operator."""
EXIT_ACTIVATIONS = {"Tanh": "tanh", "Relu": "relu", "Gelu": "gelu"}
POOLINGS = {"first_token": "first", "mean": "mean", "pooled": "both"}
"""Input of the exit head by the name of its tensor."""


@dataclass(frozen=True, eq=False, slots=True)
class Product:
    """A linear layer: x · Wᵀ + b. Eight-bit weights are already multiplied by their scale."""

    weight_OI: Floats
    bias_O: Floats


@dataclass(frozen=True, eq=False, slots=True)
class Norm:
    """A layer normalisation."""

    gamma_O: Floats
    beta_O: Floats
    epsilon: float


@dataclass(frozen=True, eq=False, slots=True)
class LayerWeights:
    """Weights of one layer and its exit head.

    ``bias_AD`` is added to the attention scores; its column d belongs to tokens at the distance
    d − (P − 1), key minus query, for P positions. Between the exit head's products is
    ``exit_activation``.
    """

    heads: int
    activation: str
    pooling: str
    qkv: Product
    attention: Product
    attention_norm: Norm
    inner: Product
    output: Product
    output_norm: Norm
    exit_head: tuple[Product, ...]
    exit_activation: str | None
    bias_AD: Floats | None


def read_weights(bundle: Bundle, layer: int) -> LayerWeights:
    """Read a layer's weights; raises `BundleError` if the file is not a layer of this version."""
    file = bundle.path / layer_file(layer)
    bundle.check_file(layer_file(layer))
    raw = read_limited(file, LARGEST_FILE_BYTES)
    try:
        return _Graph(onnx.load_model_from_string(raw)).weights()
    except Exception as error:  # exceptions of onnx and protobuf have no common base class
        raise BundleError(
            f"bundle: {file} cannot be read by the cuda runtime ({type(error).__name__}); export "
            "the bundle's run again with this version of dimee, or set DIMEE_DEVICE=cpu"
        ) from None


class _Graph:
    """Tensors by name and nodes by the name of their output."""

    def __init__(self, model: Any) -> None:
        self._tensors = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self._nodes = {output: node for node in model.graph.node for output in node.output}

    def weights(self) -> LayerWeights:
        exit_names = [*(name for name in ("exit.1",) if name in self._nodes), "logits"]
        exit_head = tuple(self._exit_product(name) for name in exit_names)
        first = self._nodes[exit_names[0]].input[0]
        activation = None
        if len(exit_head) > 1:  # older versions name the output of their tanh differently
            activated = self._nodes.get("exit.1.activated")
            activation = "tanh" if activated is None else EXIT_ACTIVATIONS[activated.op_type]
        return LayerWeights(
            heads=self._attribute("context", "num_heads").i,
            activation=ACTIVATIONS[self._nodes["activated"].op_type],
            pooling=POOLINGS[first],
            qkv=self._product("qkv", "qkv.bias"),
            attention=self._product("attention.dense", "attention.bias"),
            attention_norm=self._norm("attention", "attention.out"),
            inner=self._product("inner", "inner.bias"),
            output=self._product("output.dense", "output.bias"),
            output_norm=self._norm("output", "hidden_out"),
            exit_head=exit_head,
            exit_activation=activation,
            bias_AD=self._tensors.get("attention_bias.table"),
        )

    def _product(self, name: str, bias: str) -> Product:
        weight_OI = self._tensors[f"{name}.weight"].T.astype(np.float32)
        if f"{name}.scale" in self._tensors:
            weight_OI = weight_OI * self._tensors[f"{name}.scale"][:, None]
        return Product(np.ascontiguousarray(weight_OI), self._tensors[bias])

    def _norm(self, name: str, output: str) -> Norm:
        epsilon = self._attribute(output, "epsilon").f
        return Norm(self._tensors[f"{name}.gamma"], self._tensors[f"{name}.beta"], epsilon)

    def _exit_product(self, output: str) -> Product:
        _, weight, bias = self._nodes[output].input
        return Product(self._tensors[weight], self._tensors[bias])

    def _attribute(self, output: str, name: str) -> Any:
        return next(item for item in self._nodes[output].attribute if item.name == name)
