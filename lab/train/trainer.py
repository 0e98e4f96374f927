"""Joint training of all exits (eq. 1): length-sorted batches, bf16 autocast, resumable."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tqdm import tqdm

from lab.data.examples import Split, check_classes, data_hash, load_split
from lab.data.tasks import Task, get_task
from lab.models.classifiers import load_classifier, read_classifier
from lab.models.encoders import encoder_licence, load_tokenizer
from lab.models.exit_heads import ExitShape
from lab.models.model import MultiExitClassifier, load_model, new_model, save_model
from lab.models.predict import accuracy_by_exit, predict
from lab.train.batches import make_batches, masked, token_ids
from lab.train.checkpoint import resume, save_checkpoint
from lab.train.early_stopping import diverged, save_if_best
from lab.train.loss import isolate_segments, joint_loss
from lab.train.settings import TrainSettings, check_settings
from lab.train.teacher import teacher_logits
from shared.errors import InvalidInput


def train(settings: TrainSettings, out: Path, checkpoint_steps: int = 250) -> dict[str, Any]:
    """Train all exits together and write the model to ``out``/model.

    Called again with equal settings, it resumes an interrupted run from ``out``/checkpoint.pt.
    Returns the facts of the run: settings, data hash and accuracy by exit on the validation part.
    Raises `InvalidInput` for wrong settings or data, before anything is trained, and `Diverged`.
    """
    check_settings(settings)
    task = task_of(settings)
    split = load_split(settings.data, task, settings.split, settings.seed, settings.limit)
    if settings.from_classifier is None:  # a classifier has learned its classes already
        parts = {"training": split.train, "validation": split.validation}
        check_classes({name: [row.label for row in rows] for name, rows in parts.items()}, task)
    torch.manual_seed(settings.seed)
    model = untrained_model(settings, len(task.labels))
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
        if before.get("from_classifier"):
            raise InvalidInput(
                "start_from: that run started from a classifier; give --from-classifier "
                f"{before['from_classifier']} instead"
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
        "licence": _licence(settings),
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


def task_of(settings: TrainSettings) -> Task:
    """Return the task of the data; the labels are those of the classifier, if one is given."""
    task = get_task(settings.task)
    if settings.from_classifier is None:
        return task
    return replace(task, labels=read_classifier(settings.from_classifier).labels)


def untrained_model(settings: TrainSettings, classes: int) -> MultiExitClassifier:
    """Return the model with untrained exits, except for the last one of a classifier."""
    classifier = settings.from_classifier
    if classifier is None:
        model = new_model(settings.encoder, classes, settings.pooling, settings.head_hidden)
    else:
        model = load_classifier(classifier, ExitShape(settings.pooling, settings.head_hidden))
    if settings.freeze_backbone:
        model.freeze_backbone(last_exit=classifier is not None)
        if not any(weight.requires_grad for weight in model.parameters()):
            raise InvalidInput(
                "freeze_backbone: the classifier has one layer, so there is no exit to train; "
                "leave it out"
            )
    return model


def _licence(settings: TrainSettings) -> str:
    if settings.from_classifier is not None:
        return "see the classifier's card"
    return encoder_licence(settings.encoder)


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
    optimizer = make_optimizer(model, settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, max(0.0, (total - step) / max(1, total - warmup))),
    )
    done = resume(checkpoint, model, optimizer, schedule, settings)
    if not done:  # remove the files of a run that ended before its first checkpoint
        for name in ("best.safetensors", "epochs.json"):
            (out / name).unlink(missing_ok=True)
    lengths = [len(ids) for ids in token_ids(tokenizer, examples, settings.max_tokens)]
    model.train()
    progress = tqdm(total=total, initial=done, desc="train", unit="step", mininterval=2)
    for step, batch in enumerate(make_batches(lengths, settings)):
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
            inputs["input_ids"] = masked(inputs["input_ids"], tokenizer, settings.token_dropout)
        labels_B = torch.tensor([row.label for row in rows])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.bf16):
            logits_EBC = model(dict(inputs))
        teacher_BC = None if teacher_NC is None else teacher_NC[batch]
        loss = joint_loss(logits_EBC, labels_B, settings.loss, settings.distil, teacher_BC)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        # checked before the step, so that no checkpoint has infinite weights or NaN
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise diverged(settings, out, step + 1)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        progress.update()
        if step % 20 == 0:
            progress.set_postfix(loss=f"{loss.item() / model.layers:.3f}", refresh=False)
        if (step + 1) % steps_per_epoch == 0:
            save_if_best(model, tokenizer, split.validation, settings, out, step + 1)
            model.train()
        if (step + 1) % checkpoint_steps == 0 or step + 1 == total:
            save_checkpoint(checkpoint, step + 1, model, optimizer, schedule, settings)
    progress.close()


def make_optimizer(model: MultiExitClassifier, settings: TrainSettings) -> torch.optim.Optimizer:
    """Return ``adam``, as in the paper, or ``adamw``, with decoupled weight decay."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    if settings.optimizer == "adam":
        return torch.optim.Adam(trained, lr=settings.learning_rate)
    return torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
