"""ELECTRA: BERT's layers; the embeddings may be narrower than the layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lab.models.families.base import BertLayers, ClassifierHead, EmbeddingTables, array


class Electra(BertLayers):
    """ELECTRA (Clark et al. 2020), the discriminator: absolute positions, pairs by token types.

    If the embedding size differs from the hidden size, a projection after the embeddings'
    normalisation maps one to the other.
    """

    title = "ELECTRA"
    model_types = ("electra",)
    classifiers = ("ElectraForSequenceClassification",)
    pairs_by_segments = True

    @property
    def embedding_size(self) -> int:
        return int(self.config.embedding_size)

    def tables(self, encoder: Any) -> EmbeddingTables:
        tables = super().tables(encoder)
        if self.embedding_size == self.config.hidden_size:
            return tables
        projection = encoder.embeddings_project
        return replace(
            tables,
            projection_HE=array(projection.weight),
            projection_H=array(projection.bias),
        )

    def classifier_head(self, classifier: Any) -> ClassifierHead:
        return replace(super().classifier_head(classifier), activation="gelu")
