"""Devices that run a tier's layers: the cores, with onnxruntime, or GPUs, with torch.

This module imports no torch: a process without a GPU must start without it.
"""

from __future__ import annotations

import ctypes
import json
import logging
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from shared.errors import InvalidInput
from shared.extras import install_command
from shared.inference.layer_batcher import MAX_ROWS, MAX_TOKENS

log = logging.getLogger(__name__)
Runtime = Literal["onnx", "cuda"]
DeviceSetting = Literal["auto", "cpu", "cuda"]
CUDA_MAX_ROWS = 512
CUDA_MAX_TOKENS = 65_536
PACKAGES = ("torch", "onnx")
"""Packages of the extra ``cuda``."""
DRIVER = "libcuda.so.1"
PROBE_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class ComputeDevice:
    """A processor that runs layers.

    ``runtime`` is ``onnx`` (onnxruntime) or ``cuda`` (torch), ``name`` torch's name of the device,
    ``title`` its name for people. The runtime ``cuda`` also runs on torch's device ``cpu``, for
    tests; no setting chooses that.
    """

    runtime: Runtime = "onnx"
    name: str = "cpu"
    title: str = "cpu"

    @property
    def max_rows(self) -> int:
        """Largest number of rows in a batch."""
        return CUDA_MAX_ROWS if self.runtime == "cuda" else MAX_ROWS

    @property
    def max_tokens(self) -> int:
        """Largest number of tokens in a batch, padding included."""
        return CUDA_MAX_TOKENS if self.runtime == "cuda" else MAX_TOKENS


CPU = ComputeDevice()
TORCH_CPU = ComputeDevice("cuda", "cpu", "torch's CPU path, for tests")


def choose_devices(
    setting: DeviceSetting, workers: int, workers_given: bool
) -> list[ComputeDevice]:
    """Return the device of each worker process.

    On the CPU there are ``workers``. A GPU has one worker, since two would share it in turns;
    ``workers``, if given, is the number of GPUs to use. ``auto`` means the GPUs if the extra
    ``cuda`` is installed and there is one, else the CPU. Raises `InvalidInput` for ``cuda`` if no
    GPU can be used.
    """
    if setting == "cpu":
        return [CPU] * workers
    titles, problem = gpus()
    if titles:
        used = titles[:workers] if workers_given else titles
        return [ComputeDevice("cuda", f"cuda:{i}", title) for i, title in enumerate(used)]
    if setting == "cuda":
        raise InvalidInput(
            f"settings: DIMEE_DEVICE is cuda, but {problem}; or set DIMEE_DEVICE=cpu",
            field="device",
        )
    log.info("layers run on the CPU: %s", problem)
    return [CPU] * workers


def first_gpu(field: str) -> ComputeDevice:
    """Return the first GPU; raises `InvalidInput` on ``field`` if none can be used."""
    titles, problem = gpus()
    if not titles:
        raise InvalidInput(f"{field}: {problem}", field=field)
    return ComputeDevice("cuda", "cuda:0", titles[0])


def gpus() -> tuple[list[str], str]:
    """Return the names of the GPUs that torch can use; if there is none, also the reason.

    torch is imported in a process of its own, and only where the driver's library can be loaded.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        return [], (
            f"{missing[0]} is not installed; in the clone of the repository, run: "
            f"{install_command('cuda')}"
        )
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return [], f"NVIDIA's driver ({DRIVER}) is not installed; install it"
    command = [sys.executable, "-m", "shared.inference.cuda.probe"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
        found = json.loads(done.stdout.splitlines()[-1])
        return list(found["gpus"]), str(found["problem"])
    except (subprocess.TimeoutExpired, ValueError, KeyError, IndexError):
        return [], f"torch cannot look for GPUs; see what this prints: {' '.join(command)}"
