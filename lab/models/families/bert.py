"""BERT, MiniLM and other encoders of ``model_type`` bert."""

from __future__ import annotations

from lab.models.families.base import BertLayers


class Bert(BertLayers):
    """BERT (Devlin et al. 2019): absolute positions, pairs by token types."""

    title = "BERT"
    model_types = ("bert",)
    pairs_by_segments = True
