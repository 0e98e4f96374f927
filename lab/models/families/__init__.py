"""Encoder families: one file each for BERT, DistilBERT, RoBERTa and XLM-R, MPNet and ELECTRA."""

from lab.models.families.base import ClassifierHead, EmbeddingTables, EncoderFamily, LayerWeights
from lab.models.families.registry import CLASSIFIERS, MODEL_TYPES, family_of

__all__ = [
    "CLASSIFIERS",
    "MODEL_TYPES",
    "ClassifierHead",
    "EmbeddingTables",
    "EncoderFamily",
    "LayerWeights",
    "family_of",
]
