"""The card of a bundle: its properties and measurements, from its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.reports.render import render
from shared.bundle.loading import Bundle
from shared.pricing.cost_model import CLOUD_FEES


def write_card(bundle: Bundle) -> str:
    """Write ``README.md`` into the bundle and return it."""
    card = render(
        "card",
        bundle=bundle,
        manifest=bundle.manifest,
        commands=_commands(bundle.manifest.training),
        CLOUD_FEES=CLOUD_FEES,
    )
    (bundle.path / "README.md").write_text(card, encoding="utf-8")
    return card


def _commands(facts: dict[str, Any]) -> list[str]:
    """Return the commands that make the bundle, in order; they number the runs from 1."""
    lines: list[str] = []
    last = _add_run(facts, lines)
    lines.append(f"dimee export RUN{last} BUNDLE")
    if facts.get("refitted"):
        lines.append("dimee refit BUNDLE NEW --data DATA")
    return lines


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
    lines.append(
        f"dimee train --task {run['task']} --data DATA {_encoder_options(run)} "
        f"--split {run['split']} --pooling {run['pooling']} --epochs {run['epochs']} "
        f"--batch-size {run['batch_size']} --learning-rate {run['learning_rate']} "
        f"--seed {run['seed']}{_exit_options(run)}{start} --out RUN{number}"
    )
    return number


def _encoder_options(run: dict[str, Any]) -> str:
    """Return the option for the encoder, or for the classifier that a run started from."""
    classifier = run.get("from_classifier")
    option = f"--from-classifier {classifier}" if classifier else f"--encoder {run['encoder']}"
    return f"{option} --freeze-backbone" if run.get("freeze_backbone") else option


def _exit_options(run: dict[str, Any]) -> str:
    """Return the options of ``dimee train`` that differ from their defaults."""
    options = []
    if run.get("loss", "sum") != "sum":
        options.append(f" --loss {run['loss']}")
    if run.get("distil"):
        options.append(f" --distil {run['distil']:g}")
    if run.get("token_dropout"):
        options.append(f" --token-dropout {run['token_dropout']:g}")
    if run.get("teacher"):
        options.append(f" --teacher {Path(run['teacher']).name}")
    if run.get("head_hidden"):
        options.append(f" --head-hidden {run['head_hidden']}")
    return "".join(options)
