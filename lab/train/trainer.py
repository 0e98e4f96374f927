"""Joint training of all exits (eq. 1): length-sorted batches, bf16 autocast, resumable."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from lab.data.examples import Example, Split, check_classes, data_hash, load_split
from lab.data.tasks import get_task
from lab.models.encoders import encoder_licence, load_tokenizer
from lab.models.model import MultiExitClassifier, load_model, new_model, save_model
from lab.models.predict import accuracy_by_exit, predict, validation_loss
from lab.train.loss import LOSSES, isolate_segments, joint_loss
from lab.train.teacher import teacher_logits
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


class Diverged(InvalidInput):
    """Loss, gradient or outputs became infinite or NaN; the best epoch so far stays on disk."""


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


def train(settings: TrainSettings, out: Path, checkpoint_steps: int = 250) -> dict[str, Any]:
    """Train all exits together and write the model to ``out``/model.

    Called again with equal settings, it resumes an interrupted run from ``out``/checkpoint.pt.
    Returns the facts of the run: settings, data hash and accuracy by exit on the validation part.
    Raises `InvalidInput` for wrong settings or data, before anything is trained, and `Diverged`.
    """
    check_settings(settings)
    task = get_task(settings.task)
    split = load_split(settings.data, task, settings.split, settings.seed, settings.limit)
    parts = {"training": split.train, "validation": split.validation}
    check_classes({name: [row.label for row in rows] for name, rows in parts.items()}, task)
    torch.manual_seed(settings.seed)
    model = new_model(settings.encoder, len(task.labels), settings.pooling, settings.head_hidden)
    if settings.loss == "segment":
        m, n = settings.mobile_layers, settings.edge_layers
        if not 1 <= m < n < model.layers:
            raise InvalidInput(f"m < n < l must hold for the loss segment; got m = {m}, n = {n}")
        isolate_segments(model, (m, n))
    before = None
    if settings.start_from is not None:
        earlier, before = load_model(Path(settings.start_from) / "model")
        if before["data_hash"] != data_hash(split.train + split.validation):
            raise InvalidInput(
                "start_from: that run has other data, split or seed; give the same ones"
            )
        try:
            model.load_state_dict(earlier.state_dict())
        except RuntimeError:
            raise InvalidInput(
                f"start_from: that run has another shape; give its --encoder {before['encoder']}"
            ) from None
    teacher_NC = None
    if settings.teacher is not None:
        logits_NC = teacher_logits(Path(settings.teacher), split.train, len(task.labels))
        teacher_NC = torch.from_numpy(logits_NC)
    tokenizer = load_tokenizer(settings.encoder)
    model.family.check_tokenizer(tokenizer)
    model.family.check_tokens(settings.max_tokens)
    if settings.token_dropout and tokenizer.mask_token_id is None:
        raise InvalidInput(
            f"token_dropout: the tokenizer of {settings.encoder} has no mask token; leave it out"
        )
    _make_folder(out)
    _fit(model, tokenizer, split, teacher_NC, settings, out, checkpoint_steps)
    model.load_state_dict(load_file(out / "best.safetensors"))
    outputs = predict(model, tokenizer, split.validation, settings.max_tokens)
    facts = asdict(settings) | {
        "licence": encoder_licence(settings.encoder),
        "before": before,
        "data_hash": data_hash(split.train + split.validation),
        "examples": {
            "train": len(split.train),
            "validation": len(split.validation),
            "test": len(split.test),
        },
        "validation_accuracy_by_exit": accuracy_by_exit(outputs),
    }
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    (out / "model").mkdir(exist_ok=True)
    tokenizer.backend_tokenizer.save(str(out / "model" / "tokenizer.json"))
    save_model(model, out / "model", facts)  # last: its facts say that the run is complete
    return facts


def _make_folder(out: Path) -> None:
    if (out / "grid").is_dir():
        raise InvalidInput(f"out: {out} holds a grid search; choose another folder, or add --grid")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            f"out: {out} cannot be created ({error.strerror}); choose a writable folder"
        ) from error


def _fit(
    model: MultiExitClassifier,
    tokenizer: Any,
    split: Split,
    teacher_NC: torch.Tensor | None,
    settings: TrainSettings,
    out: Path,
    checkpoint_steps: int,
) -> None:
    examples, checkpoint = split.train, out / "checkpoint.pt"
    steps_per_epoch = -(-len(examples) // settings.batch_size)
    total = settings.epochs * steps_per_epoch
    warmup = max(1, int(total * settings.warmup_share))
    optimizer = _optimizer(model, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, max(0.0, (total - step) / max(1, total - warmup))),
    )
    done = _resume(checkpoint, model, optimizer, schedule, settings)
    if not done:  # remove the files of a run that ended before its first checkpoint
        for name in ("best.safetensors", "epochs.json"):
            (out / name).unlink(missing_ok=True)
    lengths = [len(ids) for ids in _token_ids(tokenizer, examples, settings.max_tokens)]
    model.train()
    progress = tqdm(total=total, initial=done, desc="train", unit="step", mininterval=2)
    for step, batch in enumerate(_batches(lengths, settings)):
        if step < done:
            continue
        rows = [examples[i] for i in batch]
        inputs = tokenizer(
            [row.text for row in rows],
            [row.pair for row in rows] if rows[0].pair is not None else None,
            truncation=True,
            max_length=settings.max_tokens,
            padding=True,
            return_tensors="pt",
        )
        if settings.token_dropout:
            inputs["input_ids"] = _masked(inputs["input_ids"], tokenizer, settings.token_dropout)
        labels_B = torch.tensor([row.label for row in rows])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.bf16):
            logits_EBC = model(dict(inputs))
        teacher_BC = None if teacher_NC is None else teacher_NC[batch]
        loss = joint_loss(logits_EBC, labels_B, settings.loss, settings.distil, teacher_BC)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        # checked before the step, so that no checkpoint has infinite weights or NaN
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise _diverged(settings, out, step + 1)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        progress.update()
        if step % 20 == 0:
            progress.set_postfix(loss=f"{loss.item() / model.layers:.3f}", refresh=False)
        if (step + 1) % steps_per_epoch == 0:
            _save_if_best(model, tokenizer, split.validation, settings, out, step + 1)
            model.train()
        if (step + 1) % checkpoint_steps == 0 or step + 1 == total:
            _save(checkpoint, step + 1, model, optimizer, schedule, settings)
    progress.close()


def _masked(ids_BT: torch.Tensor, tokenizer: Any, share: float) -> torch.Tensor:
    """Return the ids with a random ``share`` masked; special tokens and padding stay."""
    special_BT = torch.isin(ids_BT, torch.tensor(tokenizer.all_special_ids))
    masked_BT = (torch.rand(ids_BT.shape) < share) & ~special_BT
    return ids_BT.masked_fill(masked_BT, tokenizer.mask_token_id)


def _optimizer(model: MultiExitClassifier, settings: TrainSettings) -> torch.optim.Optimizer:
    """Return ``adam``, as in the paper, or ``adamw``, with decoupled weight decay."""
    if settings.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    return torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )


def _diverged(settings: TrainSettings, out: Path, step: int) -> Diverged:
    best = out / "best.safetensors"
    advice = f"; the best epoch so far stays in {best}" if best.is_file() else ""
    return Diverged(
        f"learning_rate: training diverged at step {step}; choose a lower one than "
        f"{settings.learning_rate:g} and another --out{advice}"
    )


def _save_if_best(
    model: MultiExitClassifier,
    tokenizer: Any,
    validation: Sequence[Example],
    settings: TrainSettings,
    out: Path,
    step: int,
) -> None:
    """Early stopping, as in the paper: save the weights if this is the best epoch at full depth.

    Equal epochs are ranked by the mean accuracy of the earlier exits, then by the loss (eq. 1).
    """
    outputs = predict(model, tokenizer, validation, settings.max_tokens)
    if not np.isfinite(outputs.probabilities_ENC).all():
        raise _diverged(settings, out, step)
    epoch = {"accuracy": accuracy_by_exit(outputs), "loss": round(validation_loss(outputs), 6)}
    log = out / "epochs.json"
    epochs: dict[str, dict[str, Any]] = json.loads(log.read_text()) if log.is_file() else {}
    # logs of older versions have accuracies only
    epochs = {
        last_step: logged if isinstance(logged, dict) else {"accuracy": logged, "loss": None}
        for last_step, logged in epochs.items()
    }
    earlier = [rank(logged) for last_step, logged in epochs.items() if int(last_step) < step]
    if not earlier or rank(epoch) > max(earlier):
        part = out / "best.part"
        save_file(model.state_dict(), part)
        part.replace(out / "best.safetensors")
    part = out / "epochs.part"
    part.write_text(json.dumps(epochs | {str(step): epoch}, indent=2) + "\n")
    part.replace(log)
    tqdm.write(f"validation accuracy by exit after step {step}: {epoch['accuracy']}")


def rank(epoch: dict[str, Any]) -> tuple[float, float, float]:
    """Return the key to compare epochs by: full depth, mean of the earlier exits, lower loss."""
    *earlier, last = epoch["accuracy"]
    loss = math.inf if epoch["loss"] is None else epoch["loss"]
    return last, round(sum(earlier) / max(1, len(earlier)), 6), -loss


def _token_ids(tokenizer: Any, examples: Sequence[Example], max_tokens: int) -> list[list[int]]:
    pairs = [row.pair for row in examples] if examples[0].pair is not None else None
    encoded = tokenizer(
        [row.text for row in examples], pairs, truncation=True, max_length=max_tokens
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _batches(lengths: Sequence[int], settings: TrainSettings) -> Iterator[list[int]]:
    """Yield batches of similar length, in an order that depends on seed and epoch only."""
    size = settings.batch_size
    for epoch in range(settings.epochs):
        rng = random.Random(settings.seed * 1000 + epoch)
        order = list(range(len(lengths)))
        rng.shuffle(order)
        batches: list[list[int]] = []
        for start in range(0, len(order), size * 50):
            window = sorted(order[start : start + size * 50], key=lengths.__getitem__)
            batches += [window[i : i + size] for i in range(0, len(window), size)]
        rng.shuffle(batches)
        yield from batches


def _save(
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


def _resume(
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
