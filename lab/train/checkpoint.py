"""Checkpoints of an interrupted training."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from lab.models.model import MultiExitClassifier
from lab.train.settings import TrainSettings, with_defaults
from shared.errors import InvalidInput


def save_checkpoint(
    checkpoint: Path,
    step: int,
    model: MultiExitClassifier,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    settings: TrainSettings,
) -> None:
    part = checkpoint.with_suffix(".part")
    torch.save(
        {
            "step": step,
            "settings": asdict(settings),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "rng": torch.get_rng_state(),
        },
        part,
    )
    part.replace(checkpoint)


def resume(
    checkpoint: Path,
    model: MultiExitClassifier,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    settings: TrainSettings,
) -> int:
    if not checkpoint.is_file():
        return 0
    try:
        state = torch.load(checkpoint, weights_only=True)
        saved_settings = with_defaults(state["settings"])
    except Exception as error:  # torch raises many kinds of exceptions
        raise InvalidInput(
            f"out: {checkpoint} cannot be read ({type(error).__name__}); remove it to start again"
        ) from error
    if saved_settings != asdict(settings):
        raise InvalidInput(
            f"out: {checkpoint} belongs to a run with other settings; "
            "choose another folder, or remove it to start again"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    torch.set_rng_state(state["rng"])
    step: int = state["step"]
    return step
