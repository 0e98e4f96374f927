"""Settings of a training run, and their checks."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields
from typing import Any

from lab.train.loss import LOSSES
from shared.errors import InvalidInput

OPTIMIZERS = ("adam", "adamw")


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a training run; a checkpoint is resumed with equal settings only."""

    task: str
    """Name of the GLUE task."""
    data: str
    """Folder of JSON lines, or ``owner/name:config`` of a hub."""
    encoder: str
    """A packaged encoder, a Hugging Face folder, or a name on a hub."""
    split: str = "paper"
    """``paper`` or ``glue`` (`lab.data.examples.load_split`)."""
    pooling: str = "mean"
    """Input of the exits: ``mean``, ``cls`` or ``both``."""
    loss: str = "sum"
    """Joint loss: ``sum``, ``depth`` or ``segment`` (`lab.train.loss.joint_loss`)."""
    epochs: int = 3
    """Number of epochs."""
    batch_size: int = 32
    """Texts in a batch."""
    learning_rate: float = 8e-5
    """Highest learning rate, after the warm-up."""
    warmup_share: float = 0.06
    """Share of the steps in which the learning rate rises to its highest value."""
    weight_decay: float = 0.01
    """Decoupled weight decay, for ``adamw``."""
    optimizer: str = "adamw"
    """``adam`` or ``adamw``."""
    max_tokens: int = 128
    """Longer texts are cut to this number of tokens."""
    seed: int = 13
    """Seed of the split, the batches and the weights of the exits."""
    limit: int | None = None
    """Use only this many rows of the training file."""
    bf16: bool = True
    """Train in bfloat16 (autocast) instead of fp32."""
    start_from: str | None = None
    """A run whose weights to start from; its data, split and seed must be equal."""
    head_hidden: int = 0
    """Units of a hidden layer in each exit head; 0 for none."""
    distil: float = 0.0
    """Share of each exit's loss that is its distance from the last exit, or from `teacher`."""
    teacher: str | None = None
    """Teacher of every exit: a folder of exit outputs with training logits, or a run."""
    token_dropout: float = 0.0
    """Share of a training text's tokens that are masked at random each time it is read."""
    mobile_layers: int = 2
    """Layers on the mobile, m, for the loss ``segment``."""
    edge_layers: int = 3
    """Layers on the edge, n, for the loss ``segment``."""
    from_classifier: str | None = None
    """A fine-tuned classifier, as a Hugging Face folder or a name on a hub: its encoder is the
    encoder, its head the last exit. `encoder` must be equal to it."""
    freeze_backbone: bool = False
    """Train only the exits, without the encoder and without a classifier's own head."""


def check_settings(settings: TrainSettings) -> None:
    """Raise `InvalidInput` for invalid numbers and unknown names."""
    for name, allowed in (("loss", LOSSES), ("optimizer", OPTIMIZERS)):
        if (value := getattr(settings, name)) not in allowed:
            raise InvalidInput(f"{name}: {value!r} is not known; choose {' or '.join(allowed)}")
    if not 0 <= settings.distil < 1:
        raise InvalidInput(f"distil: {settings.distil:g} is not in [0, 1); choose a share like 0.5")
    if settings.teacher is not None and not settings.distil:
        raise InvalidInput("teacher: it has no effect at distil 0; choose a share like 0.5")
    if not 0 <= settings.token_dropout < 1:
        raise InvalidInput(
            f"token_dropout: {settings.token_dropout:g} is not in [0, 1); choose a share like 0.1"
        )
    if settings.from_classifier is not None:
        if settings.encoder != settings.from_classifier:
            raise InvalidInput(
                "encoder: the classifier has its own; leave out --encoder or --from-classifier"
            )
        if settings.start_from is not None:
            raise InvalidInput(
                "start_from: a run has its own weights; leave out --start-from or --from-classifier"
            )
    if settings.head_hidden < 0:
        raise InvalidInput(f"head_hidden: {settings.head_hidden} is too few; choose 0 or more")
    for name in ("epochs", "batch_size"):
        if (count := getattr(settings, name)) < 1:
            raise InvalidInput(f"{name}: {count} is too few; choose 1 or more")
    rate = settings.learning_rate
    if not (math.isfinite(rate) and rate > 0):
        raise InvalidInput(f"learning_rate: {rate:g} is not above 0; choose one like 3e-5")


def with_defaults(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the settings in a checkpoint's or a model's facts, with defaults for newer fields."""
    names = {field.name: field.default for field in fields(TrainSettings)}
    defaults = {name: value for name, value in names.items() if value is not MISSING}
    return defaults | {name: value for name, value in facts.items() if name in names}
