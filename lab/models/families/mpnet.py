"""MPNet: positions after the padding index, relative attention bias, no token types."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lab.models.families.base import Array, EncoderFamily, LayerWeights, array
from shared.errors import InvalidInput

BUCKETS = 32
"""Buckets of relative positions; ``transformers`` computes this number for every config."""
PADDING = 1
"""Padding index of ``transformers``' MPNet, which ignores the config's."""


class MPNet(EncoderFamily):
    """MPNet (Song et al. 2020): pairs by separators.

    All layers share one bias, added to the attention scores by the distance of two tokens.
    """

    title = "MPNet"
    model_types = ("mpnet",)
    classifiers = ("MPNetForSequenceClassification",)
    pads_by_config = True

    @property
    def first_position(self) -> int:
        return PADDING + 1

    def check(self) -> None:
        super().check()
        buckets = self.config.relative_attention_num_buckets
        if buckets < BUCKETS:
            raise InvalidInput(
                f"encoder: {buckets} buckets of relative positions are fewer than MPNet's "
                f"{BUCKETS}; choose an encoder with relative_attention_num_buckets {BUCKETS}"
            )

    def layers(self, encoder: Any) -> nn.ModuleList:
        layers: nn.ModuleList = encoder.encoder.layer
        return layers

    def layer_weights(self, layer: Any) -> LayerWeights:
        attention = layer.attention
        return LayerWeights(
            query=attention.attn.q,
            key=attention.attn.k,
            value=attention.attn.v,
            attention_output=attention.attn.o,
            attention_norm=attention.LayerNorm,
            inner=layer.intermediate.dense,
            output=layer.output.dense,
            output_norm=layer.output.LayerNorm,
        )

    def position_bias(self, encoder: Any) -> Array:
        limit = self.position_limit
        distance_D = torch.arange(1 - limit, limit)
        stack = encoder.encoder
        bucket_D = stack.relative_position_bucket(distance_D, num_buckets=BUCKETS)
        bias_DA: Array = array(stack.relative_attention_bias.weight)[bucket_D.numpy()]
        return bias_DA.T
