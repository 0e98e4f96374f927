"""Fixtures of the lab's tests: a tiny random BERT, its data, and runs of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from lab.train.settings import TrainSettings
from lab.train.trainer import train
from tests.support.tiny_data import BAD, GOOD, NEUTRAL, SPECIAL, make_rows, write_rows
from tests.support.tiny_runs import write_fixed_run


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of a BERT with three layers of 64 and random weights."""
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


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 400 training and 400 validation sentences."""
    folder = tmp_path_factory.mktemp("tiny-data")
    write_rows(folder / "train.jsonl", make_rows(400, 3))
    write_rows(folder / "validation.jsonl", make_rows(400, 4))
    return folder


@pytest.fixture(scope="session")
def settings(tiny_data: Path, tiny_encoder: Path) -> TrainSettings:
    """Settings of a training of one epoch in fp32."""
    return TrainSettings("sst2", str(tiny_data), str(tiny_encoder), epochs=1, bf16=False)


@pytest.fixture(scope="session")
def trained_run(settings: TrainSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `settings`; tests must not change it."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    # a number that is set is kept; by default MKL may use fewer threads
    torch.set_num_threads(torch.get_num_threads())
    train(settings, folder)
    return folder


@pytest.fixture(scope="session")
def fixed_run(
    tiny_data: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run with fixed weights and the split ``paper``; tests must not change it."""
    return write_fixed_run(tmp_path_factory.mktemp("fixed"), tiny_data, tiny_encoder)


@pytest.fixture(scope="session")
def other_fixed_run(
    tiny_data: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Like `fixed_run`, with other weights."""
    return write_fixed_run(tmp_path_factory.mktemp("fixed"), tiny_data, tiny_encoder, seed=2)
