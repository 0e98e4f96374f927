"""Base class of the encoder families, and their common form of weights and tables.

A family knows where an architecture's weights are, and what its ONNX layers and embedding tables
need to give the same hidden states.

Shape suffixes: V vocabulary, P positions, K segments, E embedding size, H hidden size,
A attention heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.errors import InvalidInput

Array = NDArray[np.float32]

ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu")
"""Activations of the feed-forward part that the ONNX layers can compute."""


@dataclass(frozen=True)
class LayerWeights:
    """Weights of one transformer layer: attention and feed-forward part, each with its norm."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    attention_output: nn.Linear
    attention_norm: nn.LayerNorm
    inner: nn.Linear
    output: nn.Linear
    output_norm: nn.LayerNorm


@dataclass(frozen=True)
class EmbeddingTables:
    """Embedding tables as a bundle stores them.

    Row t of ``position_PE`` belongs to token t of a text. ``type_KE`` has one row of zeros for
    encoders without token types. ``projection_HE`` and ``projection_H`` (weight and bias) map the
    normalised embeddings to the hidden size; both are None if the sizes are equal.
    """

    word_VE: Array
    position_PE: Array
    type_KE: Array
    gamma_E: Array
    beta_E: Array
    epsilon: float
    projection_HE: Array | None = None
    projection_H: Array | None = None


@dataclass(frozen=True)
class ClassifierHead:
    """Head of a fine-tuned classifier: two linear layers on the first token of the last layer."""

    hidden: nn.Linear
    activation: str
    """Activation between the two: ``tanh``, ``relu`` or ``gelu``."""
    last: nn.Linear


class EncoderFamily(ABC):
    """An architecture of encoders, for one encoder's ``config``.

    A subclass is one file of this package, listed in `lab.models.families.registry`.
    """

    title: ClassVar[str]
    """Name for messages and pages, such as ``RoBERTa``."""
    model_types: ClassVar[tuple[str, ...]]
    """Values of ``model_type`` in ``config.json``."""
    pairs_by_segments: ClassVar[bool] = False
    """True if token types distinguish the texts of a pair; False if only separators do."""
    classifiers: ClassVar[tuple[str, ...]]
    """Classes of ``transformers`` for fine-tuned classifiers, as ``architectures`` names them."""
    pads_by_config: ClassVar[bool] = False
    """True if the encoder computes positions from the padding index of its config."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def segments(self) -> int:
        """Number of segments that token types distinguish; 1 if it takes no token types."""
        return int(self.config.type_vocab_size) if self.pairs_by_segments else 1

    @property
    def takes_token_types(self) -> bool:
        """True if the encoder's inputs include ``token_type_ids``."""
        return self.segments > 1

    @property
    def first_position(self) -> int:
        """Row of the encoder's position table that belongs to a text's first token."""
        return 0

    @property
    def position_limit(self) -> int:
        """Largest number of tokens that the encoder has positions for."""
        return int(self.config.max_position_embeddings) - self.first_position

    @property
    def activation(self) -> str:
        """Activation of the feed-forward part."""
        return str(self.config.hidden_act)

    @property
    def dropout(self) -> float:
        """Dropout of the exits' inputs in training."""
        return float(self.config.hidden_dropout_prob)

    @property
    def embedding_size(self) -> int:
        """Columns of the word table."""
        return int(self.config.hidden_size)

    def check(self) -> None:
        """Raise `InvalidInput` for a config that the exported layers cannot represent."""
        config = self.config
        if self.activation not in ACTIVATIONS:
            raise InvalidInput(
                f"encoder: the activation {self.activation} cannot be exported; choose an encoder "
                f"with one of {', '.join(ACTIVATIONS)}"
            )
        if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
            raise InvalidInput(
                f"encoder: its config makes this {self.title} a decoder, which cannot be exported; "
                "choose an encoder (is_decoder and add_cross_attention false)"
            )
        kind = getattr(config, "position_embedding_type", None) or "absolute"
        if kind != "absolute":
            raise InvalidInput(
                f"encoder: the position embeddings {kind} cannot be exported; choose an encoder "
                "with absolute ones"
            )

    def check_pairs(self, tokenizer: Any) -> None:
        """Raise `InvalidInput` if the encoder cannot tell the texts of a pair apart.

        BERT and ELECTRA were trained with a segment for each text. The others read the separators
        that their tokenizer puts between the texts.
        """
        if self.pairs_by_segments and self.segments < 2:
            raise InvalidInput(
                f"encoder: this {self.title} has one segment, so it cannot read pairs; choose one "
                "with type_vocab_size 2, or one that reads pairs by separators "
                "(RoBERTa, XLM-R, MPNet, DistilBERT)"
            )
        single, pair = (tokenizer.num_special_tokens_to_add(pair) for pair in (False, True))
        if pair <= single:
            raise InvalidInput(
                "encoder: its tokenizer puts no separator between the texts of a pair, so it "
                "cannot read pairs; give a tokenizer.json whose post_processor does"
            )

    def check_tokens(self, max_tokens: int) -> None:
        """Raise `InvalidInput` for more tokens than the encoder has positions."""
        limit = self.position_limit
        if max_tokens > limit:
            raise InvalidInput(
                f"max_tokens: {max_tokens} is more than the {limit} that the encoder has "
                f"positions for; choose {limit} or fewer",
                field="max_tokens",
                limit=limit,
            )

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Raise `InvalidInput` if the tokenizer does not belong to the encoder."""
        largest = max(tokenizer.get_vocab().values())
        if largest >= self.config.vocab_size:
            raise InvalidInput(
                f"encoder: its tokenizer has ids up to {largest}, its word table has "
                f"{self.config.vocab_size} rows; give the tokenizer that belongs to it"
            )
        padding = self.first_position - 1
        if self.pads_by_config and tokenizer.pad_token_id != padding:
            raise InvalidInput(
                f"encoder: its tokenizer pads with {tokenizer.pad_token_id}, its config says "
                f"{padding}; give the tokenizer that belongs to it"
            )

    @abstractmethod
    def layers(self, encoder: Any) -> nn.ModuleList:
        """Return the transformer layers of the torch encoder, in order."""

    @abstractmethod
    def layer_weights(self, layer: Any) -> LayerWeights:
        """Return the weights of one of `layers`."""

    def tables(self, encoder: Any) -> EmbeddingTables:
        """Return the embedding tables of the torch encoder."""
        embeddings = encoder.embeddings
        return EmbeddingTables(
            word_VE=array(embeddings.word_embeddings.weight),
            position_PE=array(embeddings.position_embeddings.weight)[self.first_position :],
            type_KE=self._type_rows(embeddings),
            gamma_E=array(embeddings.LayerNorm.weight),
            beta_E=array(embeddings.LayerNorm.bias),
            epsilon=float(embeddings.LayerNorm.eps),
        )

    def classifier_head(self, classifier: Any) -> ClassifierHead:
        """Return the head of one of `classifiers`."""
        head = classifier.classifier
        return ClassifierHead(head.dense, "tanh", head.out_proj)

    def position_bias(self, encoder: Any) -> Array | None:
        """Return ``bias_AD``, which attention adds to the score of each pair of tokens, or None.

        Column d belongs to tokens at the distance d − (P − 1), key minus query.
        """
        return None

    def _type_rows(self, embeddings: Any) -> Array:
        if not hasattr(embeddings, "token_type_embeddings"):
            return np.zeros((1, self.embedding_size), np.float32)
        return array(embeddings.token_type_embeddings.weight)


class BertLayers(EncoderFamily):
    """Families whose layers have BERT's names."""

    def layers(self, encoder: Any) -> nn.ModuleList:
        layers: nn.ModuleList = encoder.encoder.layer
        return layers

    def layer_weights(self, layer: Any) -> LayerWeights:
        attention = layer.attention
        projections = attention.self
        return LayerWeights(
            query=projections.query,
            key=projections.key,
            value=projections.value,
            attention_output=attention.output.dense,
            attention_norm=attention.output.LayerNorm,
            inner=layer.intermediate.dense,
            output=layer.output.dense,
            output_norm=layer.output.LayerNorm,
        )


def array(parameter: Tensor) -> Array:
    """Return a torch parameter as fp32 numbers of numpy."""
    values: Array = parameter.detach().float().cpu().numpy()
    return values
