"""``DIMEE_DEVICE``: the device of each worker process, and clear errors without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from cloud_server.settings import CloudSettings
from shared.errors import InvalidInput
from shared.inference import devices
from shared.inference.devices import CPU, TORCH_CPU, choose_devices, gpus
from shared.inference.layer_batcher import MAX_ROWS, MAX_TOKENS
from shared.settings import read_settings


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: (["NVIDIA A", "NVIDIA B"], ""))


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: ([], "torch finds no GPU; check nvidia-smi"))


@pytest.mark.usefixtures("no_gpu")
def test_cpu_has_the_workers_of_the_setting() -> None:
    assert choose_devices("cpu", 3, workers_given=True) == [CPU] * 3
    assert choose_devices("auto", 2, workers_given=False) == [CPU] * 2


@pytest.mark.usefixtures("two_gpus")
def test_each_gpu_has_one_worker() -> None:
    for setting in ("auto", "cuda"):
        every = choose_devices(setting, 16, workers_given=False)
        assert [device.name for device in every] == ["cuda:0", "cuda:1"]
        assert [device.title for device in every] == ["NVIDIA A", "NVIDIA B"]
        assert {device.runtime for device in every} == {"cuda"}
        assert choose_devices(setting, 16, workers_given=True) == every
        assert choose_devices(setting, 1, workers_given=True) == every[:1]
    assert choose_devices("cpu", 2, workers_given=False) == [CPU] * 2


@pytest.mark.usefixtures("no_gpu")
def test_cuda_without_a_gpu_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(InvalidInput, match="DIMEE_DEVICE is cuda, but torch finds no GPU; check"):
        choose_devices("cuda", 2, workers_given=False)


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    found, problem = gpus()
    assert not found
    assert problem.startswith("torch is not installed; ")
    assert problem.endswith("pip install -e '.[cuda]'")


def test_without_a_driver_torch_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*arguments: Any, **options: Any) -> None:
        raise AssertionError("torch was started")

    monkeypatch.setattr(devices, "DRIVER", "libno-such-driver.so.1")
    monkeypatch.setattr(subprocess, "run", started)
    found, problem = gpus()
    assert not found
    assert "driver (libno-such-driver.so.1) is not installed" in problem


@pytest.fixture(params=["answer", "nothing"])
def probe_output(request: pytest.FixtureRequest) -> str:
    answer = json.dumps({"gpus": ["NVIDIA A"], "problem": ""})
    return f"a warning of a library\n{answer}\n" if request.param == "answer" else ""


def test_gpus_are_those_that_torch_prints(
    probe_output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert command == [sys.executable, "-m", "shared.inference.cuda.probe"]
        return subprocess.CompletedProcess(command, 0, probe_output, "")

    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(subprocess, "run", run)
    found, problem = gpus()
    assert found == (["NVIDIA A"] if probe_output else [])
    assert ("torch cannot look for GPUs" in problem) is not bool(probe_output)


def test_setting_is_read_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CloudSettings().device == "auto"
    monkeypatch.setenv("DIMEE_DEVICE", "cuda")
    assert read_settings(CloudSettings).device == "cuda"
    monkeypatch.setenv("DIMEE_DEVICE", "tpu")
    with pytest.raises(InvalidInput, match="DIMEE_DEVICE"):
        read_settings(CloudSettings)


def test_batches_of_a_gpu_are_larger() -> None:
    assert (CPU.max_rows, CPU.max_tokens) == (MAX_ROWS, MAX_TOKENS)
    assert TORCH_CPU.max_rows == 512


def test_probe_names_a_build_without_cuda() -> None:
    probe = pytest.importorskip("shared.inference.cuda.probe")
    torch = pytest.importorskip("torch")
    if torch.version.cuda is not None:
        pytest.skip("torch is a build with CUDA")
    assert probe.found() == {
        "gpus": [],
        "problem": f"torch {torch.__version__} is a build without CUDA; install one with CUDA",
    }
