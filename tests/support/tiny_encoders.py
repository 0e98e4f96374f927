"""Tiny encoders of every family with random weights, as Hugging Face folders with tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoModel,
    BertConfig,
    BertTokenizer,
    DistilBertConfig,
    DistilBertTokenizer,
    ElectraConfig,
    ElectraTokenizer,
    MPNetConfig,
    MPNetTokenizer,
    RobertaConfig,
    RobertaTokenizer,
    XLMRobertaConfig,
    XLMRobertaTokenizer,
)

from lab.models.embedding_tables import quantised_rows
from lab.models.model import MultiExitClassifier
from tests.support.tiny_data import BAD, GOOD, NEUTRAL, SPECIAL, make_rows

CONFIGS: dict[str, type[Any]] = {
    "bert": BertConfig,
    "distilbert": DistilBertConfig,
    "electra": ElectraConfig,
    "mpnet": MPNetConfig,
    "roberta": RobertaConfig,
    "xlm-roberta": XLMRobertaConfig,
}
PADDED = ("mpnet", "roberta", "xlm-roberta")
"""Kinds whose positions start after the padding index, 1."""
CONTROL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
WORDS = (*GOOD, *BAD, *NEUTRAL)
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz0123456789.,!?'[]<>/|-_")


def make_tokenizer(kind: str) -> Any:
    """Return a tokenizer of the kind: WordPiece, byte-level BPE or Unigram.

    Every kind has the words of `tests.support.tiny_data` as pieces, and single characters.
    """
    pieces = tuple(dict.fromkeys([*WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]))
    word_piece = {
        "bert": BertTokenizer,
        "distilbert": DistilBertTokenizer,
        "electra": ElectraTokenizer,
    }
    if kind in word_piece:
        return word_piece[kind](vocab={piece: i for i, piece in enumerate((*SPECIAL, *pieces))})
    if kind == "mpnet":
        vocabulary = (*CONTROL[:3], "[UNK]", *pieces, "<mask>")
        return MPNetTokenizer(vocab={piece: i for i, piece in enumerate(vocabulary)})
    if kind == "xlm-roberta":
        scores = [(f"▁{word}", -3.0) for word in WORDS] + [("▁", -4.0)]
        scores += [(letter, -6.0) for letter in LETTERS]
        return XLMRobertaTokenizer(vocab=[(name, 0.0) for name in CONTROL] + scores)
    trained = ByteLevelBPETokenizer()
    texts = [str(row["sentence"]) for row in make_rows(200, 6)]
    trained.train_from_iterator(texts, 400, special_tokens=[*CONTROL], show_progress=False)
    made = json.loads(trained.to_str())["model"]
    return RobertaTokenizer(vocab=made["vocab"], merges=[tuple(two) for two in made["merges"]])


def make_config(kind: str, vocabulary: int, tokens: int = 64, **settings: Any) -> Any:
    """Return a config of three layers of 32 with ``tokens`` positions; ELECTRA embeds in 16."""
    padded = kind in PADDED
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "hidden_dim" if kind == "distilbert" else "intermediate_size": 64,
        "max_position_embeddings": tokens + 2 * padded,
        "pad_token_id": int(padded),
        "initializer_range": 0.3,
    }
    if kind == "electra":
        sizes["embedding_size"] = 16
    if kind in ("roberta", "xlm-roberta"):
        sizes["type_vocab_size"] = 1
    return CONFIGS[kind](**(sizes | settings))


def write_encoder(kind: str, folder: Path, tokens: int = 64, **settings: Any) -> Path:
    """Write an encoder with random weights and its tokenizer to ``folder``, and return it."""
    tokenizer = make_tokenizer(kind)
    torch.manual_seed(3)
    config = make_config(kind, len(tokenizer), tokens, **settings)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def randomise(model: MultiExitClassifier, seed: int) -> MultiExitClassifier:
    """Replace all weights and biases by numbers of numpy's generator, equal on every CPU.

    The word table has values that a bundle's 8 bits represent exactly.
    """
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = rng.normal(0, 0.3, tuple(parameter.shape)).astype(np.float32)
            if "norm.weight" in name.lower():
                values += 1
            parameter.copy_(torch.from_numpy(values))
        words = model.encoder.embeddings.word_embeddings.weight
        word_VE, scale_V = quantised_rows(words.numpy())
        words.copy_(torch.from_numpy(word_VE * scale_V[:, None]))
    return model
