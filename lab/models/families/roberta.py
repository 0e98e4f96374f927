"""RoBERTa and XLM-R: BERT's layers, positions after the padding index, no token types."""

from __future__ import annotations

from typing import Any

from lab.models.families.base import Array, BertLayers
from shared.errors import InvalidInput


class Roberta(BertLayers):
    """RoBERTa (Liu et al. 2019) and XLM-R (Conneau et al. 2020): pairs by separators.

    Positions are counted from the padding index + 1, so the first rows of the position table are
    unused. Some configs have two segments (``type_vocab_size``), but both were pretrained with the
    first one only; every token gets that one.
    """

    title = "RoBERTa"
    model_types = ("roberta", "xlm-roberta")
    classifiers = ("RobertaForSequenceClassification", "XLMRobertaForSequenceClassification")
    pads_by_config = True

    def check(self) -> None:
        super().check()
        if self.config.pad_token_id is None:
            raise InvalidInput(
                f"encoder: this {self.title} has no padding token, from which it counts positions; "
                "set pad_token_id in its config.json"
            )

    @property
    def first_position(self) -> int:
        return int(self.config.pad_token_id) + 1

    def _type_rows(self, embeddings: Any) -> Array:
        return super()._type_rows(embeddings)[:1]
