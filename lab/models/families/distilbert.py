"""DistilBERT: BERT's layers under other names, without token types."""

from __future__ import annotations

from typing import Any

from torch import nn

from lab.models.families.base import ClassifierHead, EncoderFamily, LayerWeights


class DistilBert(EncoderFamily):
    """DistilBERT (Sanh et al. 2019): absolute positions, pairs by separators."""

    title = "DistilBERT"
    model_types = ("distilbert",)
    classifiers = ("DistilBertForSequenceClassification",)

    @property
    def activation(self) -> str:
        return str(self.config.activation)

    @property
    def dropout(self) -> float:
        return float(self.config.dropout)

    def layers(self, encoder: Any) -> nn.ModuleList:
        layers: nn.ModuleList = encoder.transformer.layer
        return layers

    def layer_weights(self, layer: Any) -> LayerWeights:
        return LayerWeights(
            query=layer.attention.q_lin,
            key=layer.attention.k_lin,
            value=layer.attention.v_lin,
            attention_output=layer.attention.out_lin,
            attention_norm=layer.sa_layer_norm,
            inner=layer.ffn.lin1,
            output=layer.ffn.lin2,
            output_norm=layer.output_layer_norm,
        )

    def classifier_head(self, classifier: Any) -> ClassifierHead:
        return ClassifierHead(classifier.pre_classifier, "relu", classifier.classifier)
