"""One transformer layer and its exit head as an ONNX graph, from torch weights.

The graph is built node by node: it is independent of the exporter's version, the three projections
are one product, and the products can run in integers. Activations are quantised with a scale for
each row (a token of a text), never across the batch, so rows are independent of each other.

Shape suffixes: B rows, T tokens, H hidden size, C classes, A attention heads, D distances.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from lab.models.exit_heads import activation_of, last_linear, linear_layers
from lab.models.families.base import Array, LayerWeights, array

CONTRIB = "com.microsoft"
EXIT_ACTIVATIONS = {"tanh": ("Tanh", ""), "relu": ("Relu", ""), "gelu": ("Gelu", CONTRIB)}
"""ONNX operator and domain of an exit head's activation."""
ZERO = 128
LARGEST = 63
"""Weights have seven bits: two products with eight-bit activations fit the 16-bit sums of CPUs
without VNNI, so that every CPU computes the same."""


@dataclass
class Graph:
    """An ONNX graph under construction; products run in integers unless ``bits`` is None."""

    bits: int | None
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def weight(self, name: str, values: NDArray[np.generic]) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def node(
        self, op: str, inputs: list[str], output: str, domain: str = "", **attributes: Any
    ) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], domain=domain, **attributes))
        return output

    def product(self, name: str, inputs: str, weight_OI: Array) -> str:
        """Add x · Wᵀ for a torch weight of shape (out, in)."""
        if self.bits is None:
            return self.node("MatMul", [inputs, self.weight(f"{name}.weight", weight_OI.T)], name)
        weight_IO, scale_O = quantise_columns(weight_OI)
        whole, row_scale = self._quantised(name, inputs, weight_IO.shape[0])
        unit = self.weight(f"{name}.unit", np.array(1, np.float32))
        zero = self.weight(f"{name}.zero", np.array(ZERO, np.uint8))
        parts = [whole, self.weight(f"{name}.weight", weight_IO), unit]
        parts += [self.weight(f"{name}.scale", scale_O), zero]
        product = self.node("MatMulIntegerToFloat", parts, f"{name}.product", CONTRIB)
        return self.node("Mul", [product, row_scale], name)

    def _quantised(self, name: str, inputs: str, size: int) -> tuple[str, str]:
        """Add activations in 8 bits with a scale for each row, and that scale (B, T, 1).

        ``QuantizeLinear`` has a scale for each row in two dimensions only, so they are flattened.
        """
        numbers = {"flat": [-1, size], "axis": [-1], "start": [0], "end": [2], "single": [1]}
        ints = {
            key: self.weight(f"{name}.{key}", np.array(value, np.int64))
            for key, value in numbers.items()
        }
        step = self.weight(f"{name}.step", np.array(1 / 127, np.float32))
        least = self.weight(f"{name}.least", np.array(1e-12, np.float32))
        middle = self.weight(f"{name}.middle", np.array(ZERO, np.uint8))
        rows = self.node("Reshape", [inputs, ints["flat"]], f"{name}.rows")
        magnitude = self.node("Abs", [rows], f"{name}.magnitude")
        peak = self.node("ReduceMax", [magnitude, ints["axis"]], f"{name}.peak", keepdims=0)
        scaled = self.node("Mul", [peak, step], f"{name}.scaled")
        scale = self.node("Max", [scaled, least], f"{name}.row_scale")
        count = self.node("Shape", [scale], f"{name}.count")
        zeros = self.node("Expand", [middle, count], f"{name}.zeros")
        whole = self.node("QuantizeLinear", [rows, scale, zeros], f"{name}.whole", axis=0)
        shape = self.node("Shape", [inputs], f"{name}.shape")
        texts = self.node("Slice", [shape, ints["start"], ints["end"]], f"{name}.texts")
        column = self.node("Concat", [texts, ints["single"]], f"{name}.column", axis=0)
        return (
            self.node("Reshape", [whole, shape], f"{name}.quantised"),
            self.node("Reshape", [scale, column], f"{name}.scale_column"),
        )


def quantise_columns(weight_OI: Array) -> tuple[NDArray[np.int8], Array]:
    """Return symmetric integers ``weight_IO`` with one fp32 scale for each output, ``scale_O``."""
    scale_O = np.abs(weight_OI).max(1) / LARGEST
    safe_O = np.where(scale_O == 0, 1.0, scale_O).astype(np.float32)
    weight_OI = np.rint(weight_OI / safe_O[:, None]).clip(-LARGEST, LARGEST)
    return weight_OI.T.astype(np.int8), safe_O


def _pooled(graph: Graph, pooling: str) -> str:
    """Add the exit head's input: the first token, the mean over all but the padding, or both."""
    if pooling != "mean":
        first = graph.weight("first", np.array(0, np.int64))
        graph.node("Gather", ["hidden_out", first], "first_token", axis=1)
        if pooling == "cls":
            return "first_token"
    one = graph.weight("one", np.array([1], np.int64))
    mask_BT = graph.node("Cast", ["mask"], "mask_float", to=TensorProto.FLOAT)
    mask_B1T = graph.node("Unsqueeze", [mask_BT, one], "mask_row")
    sum_B1H = graph.node("MatMul", [mask_B1T, "hidden_out"], "sum_row")
    sum_BH = graph.node("Squeeze", [sum_B1H, one], "sum")
    count_B1 = graph.node("ReduceSum", [mask_BT, one], "count", keepdims=1)
    mean_BH = graph.node("Div", [sum_BH, count_B1], "mean")
    if pooling == "mean":
        return mean_BH
    return graph.node("Concat", ["first_token", mean_BH], "pooled", axis=-1)


def _exit(graph: Graph, pooled: str, head: nn.Module) -> None:
    """Add the exit head: a linear layer, optionally after a hidden layer with its activation."""
    parts = linear_layers(head)
    for number, part in enumerate(parts, start=1):
        last = number == len(parts)
        name = "exit" if last else f"exit.{number}"
        weight = graph.weight(f"{name}.weight", array(part.weight))
        bias = graph.weight(f"{name}.bias", array(part.bias))
        output = "logits" if last else name
        pooled = graph.node("Gemm", [pooled, weight, bias], output, transB=1)
        if not last:
            op, domain = EXIT_ACTIVATIONS[activation_of(head)]
            pooled = graph.node(op, [pooled], f"{name}.activated", domain)


def _attention_bias(graph: Graph, bias_AD: Array) -> str:
    """Add the bias of every pair of tokens, (1, A, T, T), for any number of tokens T."""
    numbers = {"tokens_axis": 1, "zero": 0, "one": 1, "middle": bias_AD.shape[1] // 2}
    ints = {
        name: graph.weight(f"distance.{name}", np.array(value, np.int64))
        for name, value in numbers.items()
    }
    axes = {
        name: graph.weight(f"distance.{name}", np.array([value], np.int64))
        for name, value in (("row", 0), ("column", 1))
    }
    table = graph.weight("attention_bias.table", bias_AD)
    shape = graph.node("Shape", ["hidden"], "distance.shape")
    count = graph.node("Gather", [shape, ints["tokens_axis"]], "distance.count", axis=0)
    key = graph.node("Range", [ints["zero"], count, ints["one"]], "distance.positions")
    row = graph.node("Unsqueeze", [key, axes["row"]], "distance.keys")
    column = graph.node("Unsqueeze", [key, axes["column"]], "distance.queries")
    distance_TT = graph.node("Sub", [row, column], "distance")
    index_TT = graph.node("Add", [distance_TT, ints["middle"]], "distance.index")
    bias_ATT = graph.node("Gather", [table, index_TT], "attention_bias.heads", axis=1)
    return graph.node("Unsqueeze", [bias_ATT, axes["row"]], "attention_bias")


def _activation(graph: Graph, activation: str, inputs: str, bias: str) -> str:
    """Add the bias and the activation of the feed-forward part."""
    if activation == "relu":
        return graph.node("Relu", [graph.node("Add", [inputs, bias], "inner.biased")], "activated")
    # FastGelu is the approximation by tanh, which gelu_new and gelu_pytorch_tanh are
    operator = "BiasGelu" if activation == "gelu" else "FastGelu"
    return graph.node(operator, [inputs, bias], "activated", CONTRIB)


@dataclass(frozen=True)
class LayerFacts:
    """Properties that all layers of an encoder share.

    ``bias_AD`` is added to the attention scores; its column d belongs to tokens at the distance
    d − (P − 1), key minus query, for P positions.
    """

    heads: int
    activation: str = "gelu"
    bias_AD: Array | None = None


def layer_graph(
    layer: LayerWeights, facts: LayerFacts, exit_head: nn.Module, bits: int | None, pooling: str
) -> onnx.ModelProto:
    """Build ``(hidden_BTH, mask_BT) -> (hidden_out_BTH, logits_BC)``.

    ``bits`` is None for fp32 or 8 for integer products. The exit head stays fp32.
    """
    if bits not in (None, 8):
        raise ValueError(f"bits: {bits!r} is not supported; None or 8")
    hidden_size = layer.query.in_features
    graph = Graph(bits)

    projections = [layer.query, layer.key, layer.value]
    qkv = graph.product(
        "qkv", "hidden", np.concatenate([array(part.weight) for part in projections])
    )
    bias = graph.weight("qkv.bias", np.concatenate([array(part.bias) for part in projections]))
    graph.nodes.append(helper.make_node("Split", [qkv], ["q", "k", "v"], axis=-1, num_outputs=3))
    inputs = ["q", "k", "v", bias, "mask"]
    if facts.bias_AD is not None:
        inputs.append(_attention_bias(graph, facts.bias_AD))
    context = graph.node("MultiHeadAttention", inputs, "context", CONTRIB, num_heads=facts.heads)

    def residual(name: str, inputs: str, skip: str, dense: nn.Linear, norm: nn.LayerNorm) -> str:
        # onnxruntime's SkipLayerNormalization takes six times as long as these three nodes; with
        # the bias last, onnxruntime does not fuse them into it
        out = graph.product(f"{name}.dense", inputs, array(dense.weight))
        total = graph.node("Add", [out, skip], f"{name}.total")
        bias = graph.weight(f"{name}.bias", array(dense.bias))
        biased = graph.node("Add", [total, bias], f"{name}.biased")
        gamma = graph.weight(f"{name}.gamma", array(norm.weight))
        beta = graph.weight(f"{name}.beta", array(norm.bias))
        result = "hidden_out" if name == "output" else f"{name}.out"
        return graph.node(
            "LayerNormalization", [biased, gamma, beta], result, axis=-1, epsilon=float(norm.eps)
        )

    attended = residual(
        "attention", context, "hidden", layer.attention_output, layer.attention_norm
    )
    inner = graph.product("inner", attended, array(layer.inner.weight))
    inner_bias = graph.weight("inner.bias", array(layer.inner.bias))
    activated = _activation(graph, facts.activation, inner, inner_bias)
    residual("output", activated, attended, layer.output, layer.output_norm)

    _exit(graph, _pooled(graph, pooling), exit_head)
    value = helper.make_tensor_value_info
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "layer",
            [
                value("hidden", TensorProto.FLOAT, ["B", "T", hidden_size]),
                value("mask", TensorProto.INT32, ["B", "T"]),
            ],
            [
                value("hidden_out", TensorProto.FLOAT, ["B", "T", hidden_size]),
                value("logits", TensorProto.FLOAT, ["B", last_linear(exit_head).out_features]),
            ],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(CONTRIB, 1)],
        producer_name="dimee",
    )
    model.ir_version = 9
    return model
