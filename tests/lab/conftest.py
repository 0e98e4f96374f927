"""A tiny random BERT, saved as a Hugging Face folder, and data written for the project."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

GOOD = ("fine", "warm", "bright", "lovely", "great")
BAD = ("dull", "cold", "grim", "ugly", "bad")
NEUTRAL = ("a", "the", "film", "book", "and", "very", "was", "with", "day", "night")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three layers of 64, random weights: the shape of the real thing, in no time."""
    folder = tmp_path_factory.mktemp("tiny-bert")
    words = [*SPECIAL, *GOOD, *BAD, *NEUTRAL]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def make_rows(count: int, seed: int) -> list[dict[str, object]]:
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        label = rng.randint(0, 1)
        words = [rng.choice(NEUTRAL) for _ in range(rng.randint(2, 14))]
        words.insert(rng.randint(0, len(words)), rng.choice(GOOD if label else BAD))
        rows.append({"sentence": " ".join(words), "label": label})
    return rows


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-data")
    for split, count, seed in (("train", 400, 3), ("validation", 400, 4)):
        lines = "".join(json.dumps(row) + "\n" for row in make_rows(count, seed))
        (folder / f"{split}.jsonl").write_text(lines)
    return folder
