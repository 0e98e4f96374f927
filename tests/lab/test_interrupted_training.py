"""A training that is interrupted goes on and ends the same, whatever teaches it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import lab.train.trainer as training
from lab.train.trainer import TrainSettings, train

RUN = """
import sys, torch
from pathlib import Path
torch.set_num_threads(1)
import lab.train.trainer as training
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


def test_a_log_of_before_losses_were_kept_goes_on(
    tiny_data: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    settings = TrainSettings("sst2", str(tiny_data), str(tiny_encoder), epochs=2, bf16=False)
    whole = train(settings, tmp_path / "whole")
    interrupted(settings, tmp_path / "old", after=10)
    log = tmp_path / "old" / "epochs.json"
    log.write_text(
        json.dumps({done: e["accuracy"] for done, e in json.loads(log.read_text()).items()})
    )
    assert train(settings, tmp_path / "old") == whole


class Stopped(Exception):
    """The run was stopped after a checkpoint."""


def interrupted(settings: TrainSettings, out: Path, after: int) -> None:
    """Train up to the checkpoint at step ``after``, and stop there."""
    save = training._save

    def save_then_stop(checkpoint: Path, step: int, *rest: Any) -> None:
        save(checkpoint, step, *rest)
        if step == after:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.train.trainer._save", save_then_stop)
        with pytest.raises(Stopped):
            train(settings, out, checkpoint_steps=after)


@pytest.mark.parametrize("changes", [{"teacher": True}, {"token_dropout": 0.2}], ids=str)
def test_a_stopped_run_with_a_teacher_or_masked_tokens_ends_the_same(
    changes: dict[str, Any], tiny_data: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    settings = TrainSettings("sst2", str(tiny_data), str(tiny_encoder), epochs=1, bf16=False)
    plain = train(settings, tmp_path / "plain")
    if changes.pop("teacher", False):
        changes = {"teacher": str(tmp_path / "plain"), "distil": 0.5}
    settings = replace(settings, **changes)
    whole = train(settings, tmp_path / "whole")
    interrupted(settings, tmp_path / "stopped", after=4)
    assert train(settings, tmp_path / "stopped") == whole
    weights = [
        load_file(tmp_path / name / "model" / "weights.safetensors")
        for name in ("whole", "stopped", "plain")
    ]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert any(not torch.equal(weights[0][key], weights[2][key]) for key in weights[0])
    assert plain["data_hash"] == whole["data_hash"]


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
