"""One layer with its exit head, and the embeddings before the first layer, as torch functions.

On a GPU everything but the exit heads and the embeddings' sums is in fp16. On torch's CPU path,
which tests use, products are computed in fp32, and every result that a GPU would store in fp16 is
rounded to it: torch's own fp16 products take four times as long on a CPU, and their results are the
same to within 0.001 in probability.

Shape suffixes: B rows, T tokens, H hidden size, C classes, A attention heads, D distances,
E embedding size.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import Tensor
from torch.nn import functional

from shared.inference.cuda.weights import LayerWeights, Norm, Product

Linear = tuple[Tensor, Tensor]


class Precision:
    """Type of the weights and states of one device: fp16, on the CPU fp32 rounded to fp16."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.emulated = device.type == "cpu"
        self.dtype = torch.float32 if self.emulated else torch.float16

    def stored(self, values: Tensor) -> Tensor:
        """Return ``values`` as a GPU stores them."""
        return values.half().float() if self.emulated else values.half()

    def weights(self, values: NDArray[np.generic]) -> Tensor:
        """Return weights on the device, in fp16 precision."""
        return self.stored(self.exact(values))

    def exact(self, values: NDArray[np.generic]) -> Tensor:
        """Return a table on the device, in its own precision."""
        return torch.from_numpy(np.array(values)).to(self.device)

    def linear(self, part: Product) -> Linear:
        """Return a product's weights in fp16 precision."""
        return self.weights(part.weight_OI), self.weights(part.bias_O)


class DeviceLayer:
    """A layer and its exit head on a device."""

    def __init__(self, weights: LayerWeights, precision: Precision) -> None:
        self._heads, self._pooling = weights.heads, weights.pooling
        self._activation, self._exit_activation = weights.activation, weights.exit_activation
        self._stored, exact = precision.stored, precision.exact
        self._qkv = precision.linear(weights.qkv)
        self._attention = precision.linear(weights.attention)
        self._inner, self._output = (
            precision.linear(part) for part in (weights.inner, weights.output)
        )
        self._attention_norm, self._output_norm = (
            _DeviceNorm(norm, precision) for norm in (weights.attention_norm, weights.output_norm)
        )
        self._exit_head = [
            (exact(part.weight_OI), exact(part.bias_O)) for part in weights.exit_head
        ]
        self._bias_AD = None if weights.bias_AD is None else precision.weights(weights.bias_AD)

    def run(self, hidden_BTH: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return the layer's output ``hidden_BTH`` and the fp32 ``logits_BC`` of its exit head.

        ``mask_BT`` is True for tokens; every row has at least one.
        """
        B, T, _ = hidden_BTH.shape
        query, key, value = (
            part_BTH.view(B, T, self._heads, -1).transpose(1, 2)
            for part_BTH in self._product(hidden_BTH, self._qkv).chunk(3, dim=2)
        )
        context = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=self._attention_mask(mask_BT)
        )
        context_BTH = self._stored(context.transpose(1, 2).flatten(2))
        attended = self._product(context_BTH, self._attention)
        attended_BTH = self._attention_norm.run(self._stored(attended + hidden_BTH))
        inner = self._product(attended_BTH, self._inner)
        inner = self._stored(_activate(self._activation, inner))
        output = self._product(inner, self._output)
        hidden_BTH = self._output_norm.run(self._stored(output + attended_BTH))
        return hidden_BTH, self._exit(hidden_BTH, mask_BT)

    def _product(self, values: Tensor, part: Linear) -> Tensor:
        return self._stored(functional.linear(values, *part))

    def _attention_mask(self, mask_BT: Tensor) -> Tensor:
        mask_B11T = mask_BT[:, None, None, :]
        if self._bias_AD is None:
            return mask_B11T
        position_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
        distance_TT = position_T[None, :] - position_T[:, None] + self._bias_AD.shape[1] // 2
        return self._bias_AD[:, distance_TT][None].masked_fill(~mask_B11T, -torch.inf)

    def _exit(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        pooled_BH = first_BH = hidden_BTH[:, 0].float()
        if self._pooling != "first":
            sum_BH = (mask_BT[:, None].float() @ hidden_BTH.float())[:, 0]
            mean_BH = sum_BH / mask_BT.sum(1, keepdim=True)
            both = self._pooling == "both"
            pooled_BH = torch.cat([first_BH, mean_BH], dim=1) if both else mean_BH
        for number, part in enumerate(self._exit_head):
            if number and self._exit_activation is not None:
                pooled_BH = _activate(self._exit_activation, pooled_BH)
            pooled_BH = functional.linear(pooled_BH, *part)
        return pooled_BH


class _DeviceNorm:
    """A layer normalisation; torch computes its mean and variance in fp32."""

    def __init__(self, norm: Norm, precision: Precision) -> None:
        self._gamma_H = precision.weights(norm.gamma_O)
        self._beta_H = precision.weights(norm.beta_O)
        self._epsilon, self._stored = norm.epsilon, precision.stored

    def run(self, values: Tensor) -> Tensor:
        shape = self._gamma_H.shape
        normal = functional.layer_norm(values, shape, self._gamma_H, self._beta_H, self._epsilon)
        return self._stored(normal)


class DeviceEmbeddings:
    """The embedding tables of a bundle on a device; sums and normalisation are in fp32."""

    def __init__(self, file: Path, precision: Precision) -> None:
        tables = {name: precision.exact(table) for name, table in load_file(file).items()}
        self._tables = tables
        self._epsilon = float(tables["epsilon"].ravel()[0])
        self._several_types = len(tables["type"]) > 1
        self._stored = precision.stored

    def run(self, ids_BT: Tensor, types_BT: Tensor) -> Tensor:
        """Return ``hidden_BTH``, the input of the first layer."""
        tables = self._tables
        sum_BTE = tables["word"][ids_BT] * tables["word_scale"][ids_BT][..., None]
        sum_BTE = sum_BTE + tables["position"][: ids_BT.shape[1]]
        # encoders with one segment distinguish the texts of a pair by their separators
        sum_BTE = sum_BTE + (tables["type"][types_BT] if self._several_types else tables["type"][0])
        gamma_E, beta_E = tables["gamma"], tables["beta"]
        hidden = functional.layer_norm(sum_BTE, gamma_E.shape, gamma_E, beta_E, self._epsilon)
        if "projection" in tables:
            hidden = functional.linear(hidden, tables["projection"], tables["projection_bias"])
        return self._stored(hidden)


def _activate(name: str, values: Tensor) -> Tensor:
    if name == "relu":
        return functional.relu(values)
    if name == "tanh":
        return torch.tanh(values)
    return functional.gelu(values, approximate="tanh" if name == "gelu-tanh" else "none")
