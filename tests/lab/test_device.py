"""The device of torch: its choice, errors, checkpoints that another device wrote, and facts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from click import Command
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import nn

import lab.train.trainer as training
from lab.cli.average_weights import average_weights
from lab.cli.evaluate import evaluate
from lab.cli.fit_temperatures import fit_temperatures
from lab.cli.outputs import outputs
from lab.cli.train import export, pools
from lab.cli.train import train as train_command
from lab.models.device import choose_device, has_bfloat16, model_on, move_inputs
from lab.models.model import MultiExitClassifier
from lab.models.run import Run, portable_facts
from lab.train.early_stopping import Diverged
from lab.train.settings import TrainSettings
from lab.train.trainer import train
from shared.errors import InvalidInput
from tests.support.tiny_runs import train_until


def pretend_gpus(patch: pytest.MonkeyPatch, count: int, cuda: str | None = "13.0") -> None:
    """Let torch report GPUs that do not exist."""
    patch.setattr("torch.cuda.is_available", lambda: count > 0)
    patch.setattr("torch.cuda.device_count", lambda: count)
    patch.setattr("torch.version.cuda", cuda)
    patch.setattr("torch.version.hip", None)


@pytest.mark.parametrize(
    ("name", "gpus", "chosen"),
    [
        ("cpu", 0, "cpu"),
        ("cpu", 2, "cpu"),
        ("auto", 0, "cpu"),
        ("auto", 2, "cuda:0"),
        ("cuda", 1, "cuda:0"),
        ("cuda:1", 2, "cuda:1"),
    ],
)
def test_choice_of_the_device(
    name: str, gpus: int, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpus(monkeypatch, gpus)
    assert choose_device(name) == torch.device(chosen)


@pytest.mark.parametrize(
    ("name", "gpus", "cuda", "message"),
    [
        ("foo", 0, None, "device: 'foo' is not known; choose auto, cpu, cuda or cuda:N"),
        ("cuda:", 1, "13.0", "device: 'cuda:' is not known; choose auto, cpu, cuda or cuda:N"),
        ("cuda:-1", 1, "13.0", "device: 'cuda:-1' is not known; choose auto, cpu, cuda or cuda:N"),
        ("", 1, "13.0", "device: '' is not known; choose auto, cpu, cuda or cuda:N"),
        (
            "cuda",
            0,
            None,
            f"device: torch {torch.__version__} is a build for the CPU only; install its CUDA "
            "build (docs/how-to/train-a-bundle.md, 'Train on a GPU'), or choose cpu",
        ),
        (
            "cuda:0",
            0,
            "13.0",
            "device: torch finds no GPU that it can use; check the driver with nvidia-smi and "
            "CUDA_VISIBLE_DEVICES, or choose cpu",
        ),
        ("cuda:7", 1, "13.0", "device: cuda:7 does not exist; choose cuda:0, or cpu"),
        ("cuda:7", 4, "13.0", "device: cuda:7 does not exist; choose cuda:0 to cuda:3, or cpu"),
    ],
)
def test_device_that_cannot_be_used_is_refused(
    name: str, gpus: int, cuda: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpus(monkeypatch, gpus, cuda)
    with pytest.raises(InvalidInput, match=f"^{re.escape(message)}$"):
        choose_device(name)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (train_command, ["--data", "none", "--out", "{out}"]),
        (train_command, ["--data", "none", "--out", "{out}", "--grid"]),
        (pools, ["{run}"]),
        (export, ["{run}", "{out}"]),
        (outputs, ["{run}", "--out", "{out}"]),
        (evaluate, ["{run}", "--out", "{out}"]),
        (average_weights, ["{run}", "{run}", "--out", "{out}"]),
        (fit_temperatures, ["{run}", "--out", "{out}"]),
    ],
)
def test_every_command_refuses_an_unknown_device(
    command: Command, arguments: list[str], fixed_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    places = {"{run}": str(fixed_run), "{out}": str(out)}
    given = [places.get(argument, argument) for argument in arguments]
    done = CliRunner().invoke(command, [*given, "--device", "foo"])
    assert isinstance(done.exception, InvalidInput)
    assert done.exception.message.startswith("device: 'foo' is not known; choose auto, cpu")
    assert not out.exists()


def test_command_line_refuses_a_device_in_one_sentence(tmp_path: Path) -> None:
    program = "from mobile_client.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "train", "--data", "none", "--out", str(tmp_path / "out"),
         "--device", "npu"],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert line.endswith("device: 'npu' is not known; choose auto, cpu, cuda or cuda:N")
    assert done.stdout == ""


def as_if_written_on_a_gpu(checkpoint: Path) -> None:
    """Change the place of all tensors in the file to ``cuda:0``, and add a GPU's facts."""
    state = torch.load(checkpoint, weights_only=True)
    state["devices"], state["seconds"] = ["NVIDIA L4"], 100.0
    state["cuda_rng"] = torch.zeros(16, dtype=torch.uint8)
    torch.save(state, checkpoint)
    with zipfile.ZipFile(checkpoint) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(checkpoint, "w") as archive:
        for name, content in contents.items():
            if name.endswith("data.pkl"):
                # pickled strings: their length in 4 bytes, then the characters
                assert b"X\3\0\0\0cpu" in content
                content = content.replace(b"X\3\0\0\0cpu", b"X\6\0\0\0cuda:0")
            archive.writestr(name, content)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the checkpoint would load on the GPU")
def test_checkpoint_of_a_gpu_continues_on_a_cpu(
    settings: TrainSettings, trained_run: Path, tmp_path: Path
) -> None:
    train_until(settings, tmp_path, step=4)
    as_if_written_on_a_gpu(tmp_path / "checkpoint.pt")
    with pytest.raises(RuntimeError, match="map_location"):
        torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    facts = train(settings, tmp_path)
    assert facts["device"] == "NVIDIA L4, then cpu"
    assert facts["training_seconds"] > 100
    weights, whole = (
        load_file(run / "model" / "weights.safetensors") for run in (tmp_path, trained_run)
    )
    assert all(torch.equal(weights[name], whole[name]) for name in whole)


def test_facts_name_device_torch_precision_and_seconds(
    settings: TrainSettings, trained_run: Path
) -> None:
    facts = json.loads((trained_run / "model" / "dimee.json").read_text())
    assert facts["device"] == "cpu"
    assert facts["torch"] == torch.__version__
    assert facts["training_precision"] == "fp32"
    assert facts["training_seconds"] > 0
    assert "device" not in asdict(settings), "a run may continue on another device"
    portable = portable_facts(facts | {"before": facts})
    assert "training_seconds" not in portable, "equal trainings give equal bundles"
    assert "training_seconds" not in portable["before"]
    assert portable["device"] == "cpu"


def test_checkpoint_without_devices_is_resumed(
    settings: TrainSettings, trained_run: Path, tmp_path: Path
) -> None:
    """Older versions trained on the CPU only and measured no time."""
    run = shutil.copytree(trained_run, tmp_path / "run")
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    del state["devices"], state["seconds"]
    torch.save(state, run / "checkpoint.pt")
    assert train(settings, run)["device"] == "cpu"


def test_gpu_without_bfloat16_trains_in_fp32(
    settings: TrainSettings,
    trained_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert has_bfloat16(torch.device("cpu"))
    monkeypatch.setattr(training, "has_bfloat16", lambda device: False)
    facts = train(replace(settings, bf16=True), tmp_path)
    assert facts["training_precision"] == "fp32"
    assert "note: cpu has no bfloat16; training in fp32" in capsys.readouterr().err
    weights, fp32 = (
        load_file(run / "model" / "weights.safetensors") for run in (tmp_path, trained_run)
    )
    assert all(torch.equal(weights[name], fp32[name]) for name in fp32)


def test_first_step_that_is_not_finite_is_named(settings: TrainSettings, tmp_path: Path) -> None:
    """On a GPU several steps are checked at once."""
    flags = [torch.tensor(flag) for flag in (True, True, False, True, False)]
    with pytest.raises(Diverged, match="diverged at step 38;"):
        training._check_finite(flags, settings, tmp_path, step=40)
    finite = flags[:2]
    training._check_finite(finite, settings, tmp_path, step=40)
    assert finite == []


def test_gpu_memory_that_does_not_suffice_is_explained(
    settings: TrainSettings, fixed_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(model: MultiExitClassifier, inputs: object) -> None:
        raise torch.cuda.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(MultiExitClassifier, "forward", fail)
    message = "batch_size: the GPU has too little memory left; choose a smaller one than 32"
    with pytest.raises(InvalidInput, match=f"^{message}$"):
        train(settings, tmp_path)
    run = Run(fixed_run)
    with pytest.raises(InvalidInput, match=r"^device: the GPU has too little memory left; choose"):
        run.predict(run.split().validation)


class Recorded(nn.Linear):
    """A layer that records where it moves instead of moving."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.places: list[str] = []

    def to(self, device: torch.device) -> Recorded:  # type: ignore[override]
        self.places.append(device.type)
        return self


def test_model_returns_from_the_device_also_after_an_error() -> None:
    model = Recorded()

    def use() -> None:
        with model_on(model, torch.device("meta")):
            assert model.places == ["meta"]
            raise InvalidInput("stop")

    with pytest.raises(InvalidInput, match="stop"):
        use()
    assert model.places == ["meta", "cpu"]


def test_inputs_move_to_the_device() -> None:
    inputs = {"input_ids": torch.ones(2, 3), "labels": torch.ones(2)}
    moved = move_inputs(inputs, torch.device("meta"))
    assert {name: values.device.type for name, values in moved.items()} == dict.fromkeys(
        inputs, "meta"
    )
