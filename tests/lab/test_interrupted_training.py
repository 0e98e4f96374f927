"""An interrupted training resumes and ends with the same weights, with any options."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lab.cli.common import says_how_to_go_on
from lab.train.settings import TrainSettings
from lab.train.trainer import train
from shared.signals import EndedBySignal
from tests.support.commands import dimee
from tests.support.paths import REPOSITORY
from tests.support.tiny_runs import train_until, without_times

TRAIN_UNTIL_STEP_7 = """
import sys, torch
from pathlib import Path
torch.set_num_threads(int(sys.argv[4]))
import lab.train.trainer as training
save = training.save_checkpoint
def save_then_wait(*args):
    save(*args)
    print("checkpoint", flush=True)
    sys.stdin.read()
training.save_checkpoint = save_then_wait
settings = training.TrainSettings(
    task="sst2", data=sys.argv[1], encoder=sys.argv[2], epochs=1, bf16=False
)
training.train(settings, Path(sys.argv[3]), checkpoint_steps=7)
"""


DIMEE_ENDED_BY_A_SIGNAL = """
import os, signal, sys
import lab.train.trainer as training
number, name = int(sys.argv[1]), sys.argv[2]
call = getattr(training, name)
def call_then_signal(*args):
    try:
        return call(*args)
    finally:
        os.kill(os.getpid(), number)
setattr(training, name, call_then_signal)
sys.argv[:3] = ["dimee"]
from shared.command import main
main()
"""


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """Return the weights of the model of a run."""
    return load_file(run / "model" / "weights.safetensors")


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Return whether two models have equal weights."""
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def test_killed_run_resumes_and_ends_with_the_same_weights(
    settings: TrainSettings, trained_run: Path, tmp_path: Path
) -> None:
    killed = subprocess.Popen(
        [
            sys.executable,
            "-c",
            TRAIN_UNTIL_STEP_7,
            settings.data,
            settings.encoder,
            str(tmp_path),
            str(torch.get_num_threads()),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert killed.stdout is not None
    assert "checkpoint\n" in iter(killed.stdout.readline, ""), "it ended before step 7"
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    killed.communicate()
    assert not (tmp_path / "model").exists()
    train(settings, tmp_path)
    assert equal(weights_of(tmp_path), weights_of(trained_run))


def test_signal_before_a_checkpoint_says_how_to_start_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/dimee", "train", "--out", "a run"])
    with pytest.raises(EndedBySignal), says_how_to_go_on(tmp_path):
        raise EndedBySignal(signal.SIGTERM)
    assert capsys.readouterr().err == (
        f"stopped; to start again (no checkpoint yet), run in {Path.cwd()}:\n"
        "  dimee train --out 'a run'\n"
    )


def test_signal_prints_the_command_that_goes_on(settings: TrainSettings, tmp_path: Path) -> None:
    number = signal.SIGINT
    options = ["--task", "sst2", "--data", settings.data, "--encoder", settings.encoder]
    options += ["--epochs", "1", "--no-bf16", "--out", "a run"]
    stopped = subprocess.run(
        [
            sys.executable,
            "-c",
            DIMEE_ENDED_BY_A_SIGNAL,
            str(int(number)),
            "save_checkpoint",
            "train",
            *options,
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert stopped.returncode == 128 + number, stopped.stderr
    assert "Traceback" not in stopped.stderr
    *_, said, command = stopped.stderr.strip().splitlines()
    assert said == f"stopped; to go on from the last checkpoint, run in {tmp_path}:"
    program, *arguments = shlex.split(command)
    assert program == "dimee"
    dimee(*arguments, folder=tmp_path, status=0)
    assert (tmp_path / "a run" / "model" / "weights.safetensors").exists()


def test_epoch_log_without_losses_is_resumed(settings: TrainSettings, tmp_path: Path) -> None:
    """Older versions logged accuracies only."""
    two_epochs = replace(settings, epochs=2)
    whole = train(two_epochs, tmp_path / "whole")
    train_until(two_epochs, tmp_path / "old", step=10)
    log = tmp_path / "old" / "epochs.json"
    epochs = json.loads(log.read_text())
    log.write_text(json.dumps({step: epoch["accuracy"] for step, epoch in epochs.items()}))
    assert without_times(train(two_epochs, tmp_path / "old")) == without_times(whole)


@pytest.mark.parametrize("option", ["teacher", "token_dropout"])
def test_stopped_run_with_teacher_or_masked_tokens_ends_the_same(
    option: str, settings: TrainSettings, trained_run: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {
        "teacher": {"teacher": str(trained_run), "distil": 0.5},
        "token_dropout": {"token_dropout": 0.2},
    }[option]
    changed = replace(settings, **changes)
    whole = train(changed, tmp_path / "whole")
    train_until(changed, tmp_path / "stopped", step=4)
    assert without_times(train(changed, tmp_path / "stopped")) == without_times(whole)
    assert equal(weights_of(tmp_path / "whole"), weights_of(tmp_path / "stopped"))
    assert not equal(weights_of(tmp_path / "whole"), weights_of(trained_run))
    plain = json.loads((trained_run / "model" / "dimee.json").read_text())
    assert plain["data_hash"] == whole["data_hash"]


def test_checkpoint_without_a_newer_option_is_resumed(
    settings: TrainSettings, trained_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(trained_run, tmp_path / "run")
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    del state["settings"]["optimizer"]
    torch.save(state, run / "checkpoint.pt")
    facts = (run / "model" / "dimee.json").read_text()
    train(settings, run)
    assert (run / "model" / "dimee.json").read_text() == facts
