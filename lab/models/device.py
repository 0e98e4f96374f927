"""The device that torch computes on: the CPU or an NVIDIA or AMD GPU."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from shared.errors import InvalidInput

CPU = torch.device("cpu")
INSTALL = "docs/how-to/train-a-bundle.md, 'Train on a GPU'"


def choose_device(name: str) -> torch.device:
    """Return the device ``auto``, ``cpu``, ``cuda`` (the first GPU) or ``cuda:N``.

    ``auto`` is the first GPU that torch can use, or else the CPU. Raises `InvalidInput` for other
    names and for a GPU that torch cannot use.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return CPU
    match = re.fullmatch(r"cuda(?::([0-9]{1,3}))?", "cuda" if name == "auto" else name)
    if match is None:
        raise _refused(f"{name!r} is not known; choose auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        if not (torch.version.cuda or torch.version.hip):
            raise _refused(
                f"torch {torch.__version__} is a build for the CPU only; install its CUDA build "
                f"({INSTALL}), or choose cpu"
            )
        raise _refused(
            "torch finds no GPU that it can use; check the driver with nvidia-smi and "
            "CUDA_VISIBLE_DEVICES, or choose cpu"
        )
    number, count = int(match[1] or 0), torch.cuda.device_count()
    if number >= count:
        last = "" if count == 1 else f" to cuda:{count - 1}"
        raise _refused(f"{name} does not exist; choose cuda:0{last}, or cpu")
    return torch.device("cuda", number)


def _refused(why: str) -> InvalidInput:
    return InvalidInput(f"device: {why}", field="device")


def device_name(device: torch.device) -> str:
    """Return the name of the GPU, such as ``NVIDIA L4``, or the device's type, such as ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device computes in bfloat16; every CPU does, if slowly."""
    if device.type != "cuda":
        return True
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def move_inputs(inputs: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Copy tensors to the device; a GPU copies them while it computes."""
    if device.type != "cuda":
        return {name: values.to(device) for name, values in inputs.items()}
    return {
        name: values.pin_memory().to(device, non_blocking=True) for name, values in inputs.items()
    }


@contextmanager
def model_on(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Move the model to the device, and back when the block ends."""
    before = next(model.parameters()).device
    model.to(device)
    try:
        yield
    finally:
        model.to(before)


@contextmanager
def explained_memory_error(field: str, advice: str) -> Iterator[None]:
    """Raise `InvalidInput` if the memory of the GPU does not suffice in the block."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise InvalidInput(
            f"{field}: the GPU has too little memory left; {advice}", field=field
        ) from None
