"""Encoders that the exported layers cannot represent are refused in training, in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tokenizers import processors
from transformers import BertConfig, MPNetConfig, RobertaConfig

from lab.cli.train import train as train_command
from lab.models.encoders import load_encoder, load_tokenizer
from lab.models.families import family_of
from lab.train.trainer import TrainSettings, train
from shared.errors import InvalidInput
from tests.support.tiny_data import make_pair_rows, write_rows
from tests.support.tiny_encoders import PADDED, write_encoder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of a pair task."""
    folder = tmp_path_factory.mktemp("pairs")
    return write_rows(folder / "train.jsonl", make_pair_rows(60, 3)).parent


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("bert", {"hidden_act": "silu"}, "the activation silu cannot be exported"),
        ("distilbert", {"activation": "silu"}, "the activation silu cannot be exported"),
        ("bert", {"is_decoder": True}, "makes this BERT a decoder"),
        ("roberta", {"is_decoder": True}, "makes this RoBERTa a decoder"),
        ("electra", {"add_cross_attention": True, "is_decoder": True}, "this ELECTRA a decoder"),
        (
            "bert",
            {"position_embedding_type": "relative_key"},
            "the position embeddings relative_key cannot be exported",
        ),
    ],
)
def test_config_that_layers_cannot_represent_is_refused(
    kind: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = write_encoder(kind, tmp_path, **settings)
    with pytest.raises(InvalidInput, match=message) as refused:
        load_encoder(str(folder))
    assert str(refused.value).startswith("encoder: ")
    assert "; choose " in str(refused.value)


def test_tables_without_buckets_or_padding_are_refused() -> None:
    with pytest.raises(InvalidInput, match="16 buckets of relative positions are fewer"):
        family_of(MPNetConfig(relative_attention_num_buckets=16))
    with pytest.raises(InvalidInput, match=r"no padding token.*set pad_token_id in its config"):
        family_of(RobertaConfig(pad_token_id=None))


@pytest.mark.parametrize("kind", ["bert", "electra"])
def test_pair_task_on_one_segment_is_refused_in_training(
    kind: str, pairs: Path, tmp_path: Path
) -> None:
    """Before, the tokenizer's type id 1 ended the export with an IndexError."""
    encoder = write_encoder(kind, tmp_path / "encoder", type_vocab_size=1)
    arguments = ["--task", "mrpc", "--data", str(pairs), "--encoder", str(encoder)]
    limits = ["--max-tokens", "32", "--out", str(tmp_path / "run")]
    refused = CliRunner().invoke(train_command, [*arguments, *limits])
    assert isinstance(refused.exception, InvalidInput)
    assert "has one segment, so it cannot read pairs; choose" in str(refused.exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", PADDED)
def test_pair_task_without_separators_is_refused(kind: str, pairs: Path, tmp_path: Path) -> None:
    encoder = write_encoder(kind, tmp_path / "encoder")
    tokenizer = load_tokenizer(str(encoder))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.backend_tokenizer.save(str(encoder / "tokenizer.json"))
    facts = json.loads((encoder / "tokenizer_config.json").read_text())
    facts["tokenizer_class"] = "PreTrainedTokenizerFast"
    (encoder / "tokenizer_config.json").write_text(json.dumps(facts))
    settings = TrainSettings("mrpc", str(pairs), str(encoder), epochs=1, max_tokens=32, bf16=False)
    with pytest.raises(InvalidInput, match="no separator between the texts of a pair"):
        train(settings, tmp_path / "run")


def test_segments_are_those_of_the_type_table() -> None:
    assert family_of(BertConfig()).takes_token_types
    assert not family_of(BertConfig(type_vocab_size=1)).takes_token_types
    # pretrained with one segment, whatever the config says
    assert not family_of(RobertaConfig(type_vocab_size=2)).takes_token_types
