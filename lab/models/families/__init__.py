"""Encoder families: one file each for BERT, DistilBERT, RoBERTa and XLM-R, MPNet and ELECTRA."""

from lab.models.families.base import EmbeddingTables, EncoderFamily, LayerWeights
from lab.models.families.registry import MODEL_TYPES, family_of

__all__ = ["MODEL_TYPES", "EmbeddingTables", "EncoderFamily", "LayerWeights", "family_of"]
