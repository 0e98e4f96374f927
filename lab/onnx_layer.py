"""One transformer layer and its exit head as an ONNX graph, from BERT-shaped torch weights.

Built node by node, because then the graph is the same on every version of the exporter, the three
projections are one product, and the weights can be stored in 8 bits. ``MatMulNBits`` quantises
activations per block of a row, never across the batch: rows stay independent of their neighbours.

Shape suffixes: B rows, T tokens, H hidden size, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

Array = NDArray[np.float32]
CONTRIB = "com.microsoft"
BLOCK = 32


@dataclass
class _Graph:
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
        """x · Wᵀ for a torch weight of shape (out, in)."""
        if self.bits is None:
            return self.node("MatMul", [inputs, self.weight(f"{name}.weight", weight_OI.T)], name)
        packed, scales = quantise_blocks(weight_OI)
        return self.node(
            "MatMulNBits",
            [
                inputs,
                self.weight(f"{name}.weight", packed),
                self.weight(f"{name}.scales", scales),
            ],
            name,
            CONTRIB,
            N=weight_OI.shape[0],
            K=weight_OI.shape[1],
            bits=8,
            block_size=BLOCK,
            accuracy_level=4,
        )


def quantise_blocks(weight_OI: Array) -> tuple[NDArray[np.uint8], Array]:
    """Symmetric 8-bit blocks along the input axis, in the layout of ``MatMulNBits``.

    Returns ``packed_OKb`` (uint8, zero point 128) and one fp32 scale per block.
    """
    outputs, inputs = weight_OI.shape
    blocks_OKb = weight_OI.reshape(outputs, inputs // BLOCK, BLOCK)
    scales = np.abs(blocks_OKb).max(-1) / 127.0
    safe = np.where(scales == 0, 1.0, scales)
    packed = np.rint(blocks_OKb / safe[..., None]).clip(-127, 127) + 128
    return packed.astype(np.uint8), scales.astype(np.float32).reshape(-1)


def _pooled(graph: _Graph, pooling: str) -> str:
    """What the exit head reads: the first token, or the mean over all but the padding."""
    if pooling == "cls":
        first = graph.weight("first", np.array(0, np.int64))
        return graph.node("Gather", ["hidden_out", first], "pooled", axis=1)
    one = graph.weight("one", np.array([1], np.int64))
    mask_BT = graph.node("Cast", ["mask"], "mask_float", to=TensorProto.FLOAT)
    mask_B1T = graph.node("Unsqueeze", [mask_BT, one], "mask_row")
    sum_B1H = graph.node("MatMul", [mask_B1T, "hidden_out"], "sum_row")
    sum_BH = graph.node("Squeeze", [sum_B1H, one], "sum")
    count_B1 = graph.node("ReduceSum", [mask_BT, one], "count", keepdims=1)
    return graph.node("Div", [sum_BH, count_B1], "pooled")


def _array(parameter: Any) -> Array:
    values: Array = parameter.detach().float().numpy()
    return values


def layer_graph(
    layer: Any, exit_head: nn.Linear, bits: int | None, pooling: str
) -> onnx.ModelProto:
    """Build ``(hidden_BTH, mask_BT) -> (hidden_out_BTH, logits_BC)``.

    ``bits`` is None for fp32 weights or 8 for block-wise 8-bit weights. The exit head stays fp32.
    """
    if bits not in (None, 8):
        raise ValueError(f"bits: {bits!r} is not supported; None or 8")
    attention, self_attention = layer.attention, layer.attention.self
    heads = int(self_attention.num_attention_heads)
    epsilon = float(attention.output.LayerNorm.eps)
    hidden_size = self_attention.query.in_features
    graph = _Graph(bits)

    projections = [self_attention.query, self_attention.key, self_attention.value]
    qkv = graph.product(
        "qkv", "hidden", np.concatenate([_array(part.weight) for part in projections])
    )
    bias = graph.weight("qkv.bias", np.concatenate([_array(part.bias) for part in projections]))
    graph.nodes.append(helper.make_node("Split", [qkv], ["q", "k", "v"], axis=-1, num_outputs=3))
    context = graph.node(
        "MultiHeadAttention", ["q", "k", "v", bias, "mask"], "context", CONTRIB, num_heads=heads
    )

    def residual(name: str, inputs: str, skip: str, dense: Any, norm: Any) -> str:
        out = graph.product(f"{name}.dense", inputs, _array(dense.weight))
        return graph.node(
            "SkipLayerNormalization",
            [
                out,
                skip,
                graph.weight(f"{name}.gamma", _array(norm.weight)),
                graph.weight(f"{name}.beta", _array(norm.bias)),
                graph.weight(f"{name}.bias", _array(dense.bias)),
            ],
            "hidden_out" if name == "output" else f"{name}.out",
            CONTRIB,
            epsilon=epsilon,
        )

    attended = residual(
        "attention", context, "hidden", attention.output.dense, attention.output.LayerNorm
    )
    inner = graph.product("inner", attended, _array(layer.intermediate.dense.weight))
    inner_bias = graph.weight("inner.bias", _array(layer.intermediate.dense.bias))
    activated = graph.node("BiasGelu", [inner, inner_bias], "activated", CONTRIB)
    residual("output", activated, attended, layer.output.dense, layer.output.LayerNorm)

    graph.node(
        "Gemm",
        [
            _pooled(graph, pooling),
            graph.weight("exit.weight", _array(exit_head.weight)),
            graph.weight("exit.bias", _array(exit_head.bias)),
        ],
        "logits",
        transB=1,
    )
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
                value("logits", TensorProto.FLOAT, ["B", exit_head.out_features]),
            ],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(CONTRIB, 1)],
        producer_name="dimee",
    )
    model.ir_version = 9
    return model
