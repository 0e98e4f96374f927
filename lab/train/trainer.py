"""Joint training of all exits (eq. 1): length-sorted batches, bf16 autocast, resumable.

Shape suffixes: N texts, B rows, E exits, C classes.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from lab.data.examples import check_classes, data_hash
from lab.data.splits import Split, load_split
from lab.models.device import CPU, device_name, explained_memory_error, has_bfloat16, move_inputs
from lab.models.encoded_examples import content_mask
from lab.models.encoders import load_tokenizer
from lab.models.inputs import torch_inputs
from lab.models.model import MultiExitClassifier, load_model, save_model
from lab.models.predict import accuracy_by_exit, predict_encoded
from lab.train.batches import make_batches, mask_tokens
from lab.train.checkpoint import TrainingState, resume, save_checkpoint
from lab.train.early_stopping import diverged, save_if_best
from lab.train.initial_model import (
    classifier_accuracy,
    initial_model,
    licence_of,
    task_of,
)
from lab.train.loss import isolate_segments, joint_loss
from lab.train.settings import TrainSettings, check_settings
from lab.train.training_data import TrainingData, encode_data, save_tokenizer
from shared.errors import InvalidInput
from shared.files import refuse_special_files
from shared.terminal import progress_stream

REPORT_STEPS = 20
"""Steps between two reports of the loss."""


def train(
    settings: TrainSettings, out: Path, checkpoint_steps: int = 250, device: torch.device = CPU
) -> dict[str, Any]:
    """Train all exits together and write the model to ``out``/model.

    Called again with equal settings, it resumes an interrupted run from ``out``/checkpoint.pt, on
    any device. Returns the facts of the run: settings, data hash, accuracy by exit on the
    validation part, and the device. Raises `InvalidInput` for wrong settings or data, before
    anything is trained, and `Diverged`.
    """
    check_settings(settings)
    task = task_of(settings)
    split = load_split(settings.data, task, settings.split, settings.seed, settings.limit)
    if settings.from_classifier is None:  # a classifier has learned its classes already
        parts = {"training": split.train, "validation": split.validation}
        check_classes({name: [row.label for row in rows] for name, rows in parts.items()}, task)
    torch.manual_seed(settings.seed)
    model = initial_model(settings, len(task.labels))
    if settings.loss == "segment":
        m, n = settings.mobile_layers, settings.edge_layers
        if not 1 <= m < n < model.layers:
            raise InvalidInput(f"m < n < l must hold for the loss segment; got m = {m}, n = {n}")
        isolate_segments(model, (m, n))
    before = None
    if settings.start_from is not None:
        before = _start_from(Path(settings.start_from), model, split)
    tokenizer = load_tokenizer(settings.encoder)
    model.family.check_tokenizer(tokenizer)
    model.family.check_tokens(settings.max_tokens)
    if task.pair_field is not None:
        model.family.check_pairs(tokenizer)
    if settings.token_dropout and tokenizer.mask_token_id is None:
        raise InvalidInput(
            f"token_dropout: the tokenizer of {settings.encoder} has no mask token; leave it out"
        )
    data = encode_data(split, tokenizer, settings, len(task.labels), device)
    own: dict[str, Any] = {}
    if settings.from_classifier is not None:
        own["classifier_accuracy"] = classifier_accuracy(model, data.validation, task, device)
    _make_folder(out)
    if settings.bf16 and not has_bfloat16(device):
        tqdm.write(f"note: {device_name(device)} has no bfloat16; training in fp32", sys.stderr)
    with explained_memory_error("batch_size", f"choose a smaller one than {settings.batch_size}"):
        state = _fit(model, data, settings, out, checkpoint_steps, device)
    model.load_state_dict(load_file(out / "best.safetensors"))
    outputs = predict_encoded(model, data.validation, data.validation.labels_N, device)
    facts = (
        asdict(settings)
        | own
        | {
            "licence": licence_of(settings),
            "before": before,
            "data_hash": data_hash(split.train + split.validation),
            "examples": {
                "train": len(split.train),
                "validation": len(split.validation),
                "test": len(split.test),
            },
            "validation_accuracy_by_exit": accuracy_by_exit(outputs),
            "device": ", then ".join(state.devices),
            "torch": torch.__version__,
            "training_precision": _precision(settings, device),
            "training_seconds": round(state.seconds, 1),
        }
    )
    (out / "model").mkdir(exist_ok=True)
    save_tokenizer(tokenizer, out / "model" / "tokenizer.json")
    # last: its facts say that the run is complete
    save_model(model.to(CPU), out / "model", facts)
    return facts


def _start_from(run: Path, model: MultiExitClassifier, split: Split) -> dict[str, Any]:
    """Copy the weights of ``run`` to the model; returns the facts of the run."""
    earlier, facts = load_model(run / "model")
    if facts["data_hash"] != data_hash(split.train + split.validation):
        raise InvalidInput("start_from: that run has other data, split or seed; give the same ones")
    if facts.get("from_classifier"):
        raise InvalidInput(
            "start_from: that run started from a classifier; give --from-classifier "
            f"{facts['from_classifier']} instead"
        )
    try:
        model.load_state_dict(earlier.state_dict())
    except RuntimeError:
        raise InvalidInput(
            f"start_from: that run has another shape; give its --encoder {facts['encoder']}"
        ) from None
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
    refuse_special_files(out, "out")


def _fit(
    model: MultiExitClassifier,
    data: TrainingData,
    settings: TrainSettings,
    out: Path,
    checkpoint_steps: int,
    device: torch.device,
) -> TrainingState:
    steps_per_epoch = -(-len(data.train) // settings.batch_size)
    total = settings.epochs * steps_per_epoch
    warmup = max(1, int(total * settings.warmup_share))
    optimizer = make_optimizer(model.to(device), settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, max(0.0, (total - step) / max(1, total - warmup))),
    )
    state = TrainingState(model, optimizer, schedule)
    resume(out / "checkpoint.pt", state, settings, device)
    done, earlier_seconds, started = state.step, state.seconds, time.monotonic()
    if not done:  # remove the files of a run that ended before its first checkpoint
        for name in ("best.safetensors", "epochs.json"):
            (out / name).unlink(missing_ok=True)
    if done < total:
        state.started_on(device)
    model.train()
    bf16 = _precision(settings, device) == "bf16"
    finite: list[Tensor] = []
    progress = tqdm(
        total=total, initial=done, desc="train", unit="step", mininterval=2, file=progress_stream()
    )
    for step, batch in enumerate(make_batches(data.train.lengths, settings), start=1):
        if step <= done:
            continue
        loss = _batch_loss(model, data, batch, settings, device, bf16)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        finite.append(torch.isfinite(loss) & torch.isfinite(norm))
        epoch_ends = step % steps_per_epoch == 0
        saves = step % checkpoint_steps == 0 or step == total
        reports = step % REPORT_STEPS == 1
        # before the weights change, so that no file has infinite ones or NaN; not at each step of
        # a GPU, because to read a result is to wait for it
        if device.type == "cpu" or epoch_ends or saves or reports:
            _check_finite(finite, settings, out, step)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        progress.update()
        if reports:
            progress.set_postfix(loss=f"{loss.item() / model.layers:.3f}", refresh=False)
        if epoch_ends:
            save_if_best(model, data.validation, settings, out, step)
            model.train()
        if saves:
            state.step, state.seconds = step, earlier_seconds + time.monotonic() - started
            save_checkpoint(out / "checkpoint.pt", state, settings, device)
    progress.close()
    return state


def _batch_loss(
    model: MultiExitClassifier,
    data: TrainingData,
    batch: list[int],
    settings: TrainSettings,
    device: torch.device,
    bf16: bool,
) -> Tensor:
    rows = [data.train[i] for i in batch]
    inputs = torch_inputs(rows, model.family, model.pad_id)
    if settings.token_dropout:
        assert data.mask_id is not None
        inputs["input_ids"] = mask_tokens(
            inputs["input_ids"], content_mask(rows), settings.token_dropout, data.mask_id
        )
    targets = {"labels": torch.from_numpy(data.train.labels_N[batch])}
    if data.teacher_NC is not None:
        targets["teacher"] = data.teacher_NC[batch]
    targets = move_inputs(targets, device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        logits_EBC = model(move_inputs(inputs, device))
    return joint_loss(
        logits_EBC, targets["labels"], settings.loss, settings.distil, targets.get("teacher")
    )


def _precision(settings: TrainSettings, device: torch.device) -> str:
    """Return ``bf16`` (autocast) or ``fp32``; the weights and their sums are in fp32 with both."""
    return "bf16" if settings.bf16 and has_bfloat16(device) else "fp32"


def _check_finite(finite: list[Tensor], settings: TrainSettings, out: Path, step: int) -> None:
    """Raise `Diverged` if a step since the last check was not finite; ``step`` is the last one."""
    flags = torch.stack(finite).tolist()
    if not all(flags):
        raise diverged(settings, out, step - len(flags) + 1 + flags.index(False))
    finite.clear()


def make_optimizer(model: MultiExitClassifier, settings: TrainSettings) -> torch.optim.Optimizer:
    """Return ``adam``, as in the paper, or ``adamw``, with decoupled weight decay."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    if settings.optimizer == "adam":
        return torch.optim.Adam(trained, lr=settings.learning_rate)
    return torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
