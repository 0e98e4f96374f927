"""Commands that make a bundle again, from its manifest."""

from __future__ import annotations

import shlex
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from lab.data.tasks import TASK_FACTS, TASKS, all_facts_of_task
from lab.export.loss_check import MAX_LOSS
from lab.train.settings import TrainSettings
from shared.bundle.manifest import Manifest
from shared.pricing.cost_model import CostModel

ALWAYS = (
    "task",
    "data",
    "encoder",
    "split",
    "pooling",
    "epochs",
    "batch_size",
    "learning_rate",
    "seed",
)
"""Settings that a command of a training names even at their defaults."""
WITHOUT_OPTION = ("labels", "start_from", "warmup_share", "weight_decay")
"""Settings that the data, another run or the program itself gives."""
EXPORT_DEFAULTS = {"max_tokens": 256, "mobile_layers": 2, "edge_layers": 3, "mu": 0.1}
"""Options of ``dimee export`` that a manifest records, with their defaults."""


def commands(manifest: Manifest) -> list[str]:
    """Return the commands that make the bundle, in order; they number the runs from 1."""
    facts = manifest.training
    lines: list[str] = []
    last = _add_run(facts, lines)
    if facts.get("refitted"):
        lines.append(f"dimee export RUN{last} BUNDLE{_precision_options(manifest)}")
        lines.append(f"dimee refit BUNDLE NEW --data DATA{_pool_options(manifest)}")
    else:
        pool_options = _pool_options(manifest)
        lines.append(f"dimee export RUN{last} BUNDLE{_precision_options(manifest)}{pool_options}")
    return lines


def is_glue(facts: dict[str, Any]) -> bool:
    """Return whether the facts are of a task of GLUE, not of one of the user's own."""
    task = TASKS.get(facts.get("task", ""))
    if task is None or facts.get("text_field") is None:
        return task is not None
    return all(facts.get(name) == value for name, value in all_facts_of_task(task).items())


def train_options(facts: dict[str, Any]) -> str:
    """Return the options of ``dimee train`` for the settings in a run's facts.

    The order is that of `ALWAYS`, then that of the fields. Settings that the facts lack have their
    defaults, because the run is older than the setting.
    """
    defaults = {field.name: field.default for field in fields(TrainSettings)}
    if is_glue(facts):  # its name gives its fields
        facts = {name: value for name, value in facts.items() if name not in TASK_FACTS}
    words = []
    for name in (*ALWAYS, *(name for name in defaults if name not in ALWAYS)):
        value = facts.get(name, defaults[name])
        if name in WITHOUT_OPTION or value is None or value is MISSING:
            continue
        if name == "encoder" and facts.get("from_classifier"):
            continue  # the classifier is given in place of an encoder
        if name in ALWAYS or value != defaults[name]:
            words += _option(name, "DATA" if name == "data" else value)
    return " ".join(words)


def _add_run(run: dict[str, Any], lines: list[str]) -> int:
    """Add the commands of ``run`` and of its parent runs; return its number."""
    if run.get("temperatures"):
        parent = {key: value for key, value in run.items() if key != "temperatures"}
        number = _add_run(parent, lines)
        lines.append(f"dimee fit-temperatures RUN{number} --out RUN{len(lines) + 1}")
        return len(lines)
    if averaged := run.get("mixed"):
        first = {key: value for key, value in run.items() if key != "mixed"}
        numbers = [_add_run(part, lines) for part in (first, *averaged["with"])]
        share = f" --share {averaged['shares'][0]:g}" if len(numbers) == 2 else ""
        names = " ".join(f"RUN{number}" for number in numbers)
        lines.append(f"dimee average-weights {names}{share} --out RUN{len(lines) + 1}")
        return len(lines)
    start = f" --start-from RUN{_add_run(run['before'], lines)}" if run.get("before") else ""
    number = len(lines) + 1
    lines.append(f"dimee train {train_options(run)}{start} --out RUN{number}")
    return number


def _precision_options(manifest: Manifest) -> str:
    """Return the options of an export that a refit does not change."""
    max_loss = manifest.accuracy.get("loss", {}).get("max_loss", MAX_LOSS)
    options = _changed({"max_tokens": manifest.max_tokens})
    if max_loss != MAX_LOSS:
        options += _option("max_loss", max_loss)
    return "".join(f" {word}" for word in options)


def _pool_options(manifest: Manifest) -> str:
    """Return m, n, μ and prices, if they are not the defaults."""
    options = _changed(
        {name: getattr(manifest, name) for name in ("mobile_layers", "edge_layers", "mu")}
    )
    model = CostModel(layers=manifest.layers, **manifest.cost_model)
    if model == CostModel.paper(manifest.layers, model.cloud_fee):
        if model != CostModel.paper(manifest.layers):
            options += _option("cloud_fee", model.cloud_fee)
    else:
        options += ["--price-book", "PRICES"]
    return "".join(f" {word}" for word in options)


def _changed(values: dict[str, Any]) -> list[str]:
    words = []
    for name, value in values.items():
        if value != EXPORT_DEFAULTS[name]:
            words += _option(name, value)
    return words


def _option(name: str, value: Any) -> list[str]:
    """Return the words of one option; a path is shortened to its last part."""
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, float):
        return [flag, f"{value:g}"]
    text = str(value)
    return [flag, shlex.quote(Path(text).name if Path(text).is_absolute() else text)]
