"""Checkpoints of an interrupted training, which any device can continue."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from lab.models.device import device_name
from lab.models.model import MultiExitClassifier
from lab.train.settings import TrainSettings, with_defaults
from shared.errors import InvalidInput


@dataclass
class TrainingState:
    """Everything that changes while a model is trained."""

    model: MultiExitClassifier
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    step: int = 0
    """Steps that are done."""
    seconds: float = 0.0
    """Seconds of training and validation, in all the parts of an interrupted run."""
    devices: list[str] = field(default_factory=list)
    """Names of the devices that trained, in their order."""

    def started_on(self, device: torch.device) -> None:
        """Add the name of a device that trains."""
        if (name := device_name(device)) not in self.devices:
            self.devices.append(name)


def save_checkpoint(
    checkpoint: Path, state: TrainingState, settings: TrainSettings, device: torch.device
) -> None:
    """Write ``state`` and the states of the random number generators, atomically."""
    content: dict[str, Any] = {
        "step": state.step,
        "seconds": state.seconds,
        "devices": state.devices,
        "settings": asdict(settings),
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict(),
        "rng": torch.get_rng_state(),
    }
    if device.type == "cuda":
        content["cuda_rng"] = torch.cuda.get_rng_state(device)
    part = checkpoint.with_suffix(".part")
    torch.save(content, part)
    part.replace(checkpoint)


def resume(
    checkpoint: Path, state: TrainingState, settings: TrainSettings, device: torch.device
) -> None:
    """Continue from a checkpoint, if there is one, which any device may have written.

    The random numbers of a GPU continue on a GPU only; on a GPU after a CPU they start with the
    seed. Raises `InvalidInput` for a file that cannot be read and for other settings.
    """
    if not checkpoint.is_file():
        return
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        saved_settings = with_defaults(saved["settings"])
    except Exception as error:  # torch raises many kinds of exceptions
        raise InvalidInput(
            f"out: {checkpoint} cannot be read ({type(error).__name__}); remove it to start again"
        ) from error
    if saved_settings != asdict(settings):
        raise InvalidInput(
            f"out: {checkpoint} belongs to a run with other settings; "
            "choose another folder, or remove it to start again"
        )
    state.model.load_state_dict(saved["model"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.schedule.load_state_dict(saved["schedule"])
    torch.set_rng_state(saved["rng"])
    if device.type == "cuda" and "cuda_rng" in saved:
        torch.cuda.set_rng_state(saved["cuda_rng"], device)
    state.step = saved["step"]
    # checkpoints of older versions lack both
    state.seconds, state.devices = saved.get("seconds", 0.0), saved.get("devices", ["cpu"])
