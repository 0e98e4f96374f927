"""BERT, MiniLM and other encoders of ``model_type`` bert."""

from __future__ import annotations

from typing import Any

from lab.models.families.base import BertLayers, ClassifierHead


class Bert(BertLayers):
    """BERT (Devlin et al. 2019): absolute positions, pairs by token types."""

    title = "BERT"
    model_types = ("bert",)
    classifiers = ("BertForSequenceClassification",)
    pairs_by_segments = True

    def classifier_head(self, classifier: Any) -> ClassifierHead:
        return ClassifierHead(classifier.bert.pooler.dense, "tanh", classifier.classifier)
