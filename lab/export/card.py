"""The card of a bundle: its properties and measurements, from its manifest."""

from __future__ import annotations

import html
import re
from pathlib import Path

from lab.data.tasks import TASKS
from lab.evaluate.metrics import METRIC_NAMES
from lab.export.commands import commands, is_glue
from lab.reports.render import render
from shared.bundle.correctness_heads import MIN_HEAD_EXAMPLES
from shared.bundle.loading import Bundle
from shared.bundle.manifest import Manifest
from shared.labels import listed
from shared.pricing.cost_model import CLOUD_FEES


def write_card(bundle: Bundle) -> str:
    """Write ``README.md`` into the bundle and return it."""
    card = card_of(bundle)
    (bundle.path / "README.md").write_text(card, encoding="utf-8")
    return card


def card_of(bundle: Bundle) -> str:
    """Return the card of a bundle."""
    manifest = bundle.manifest
    validation_title, reported_title = part_titles(manifest)
    return render(
        "card",
        bundle=bundle,
        manifest=manifest,
        encoder=encoder_name(manifest),
        commands=commands(manifest),
        labels=listed([escaped(label) for label in manifest.labels]),
        metric=METRIC_NAMES.get(manifest.metric, manifest.metric),
        validation_title=validation_title,
        reported_title=reported_title,
        texts="English sentences" if is_glue(manifest.training) else "Texts",
        CLOUD_FEES=CLOUD_FEES,
        MIN_HEAD_EXAMPLES=MIN_HEAD_EXAMPLES,
    )


def escaped(label: str) -> str:
    """Return a label for Markdown, which shows its characters and takes none as HTML or markup."""
    return re.sub(r"([\\`*\[\]])", r"\\\1", html.escape(label, quote=False))


def encoder_name(manifest: Manifest) -> str:
    """Return the encoder, or the classifier that was trained on, without its folder."""
    name = str(manifest.training.get("from_classifier") or manifest.encoder)
    return Path(name).name if Path(name).is_absolute() else name


def part_titles(manifest: Manifest) -> tuple[str, str]:
    """Return where the validation part and the reported part are from."""
    glue, facts = is_glue(manifest.training), manifest.training
    hold_out = TASKS[manifest.task].hold_out if glue else facts.get("hold_out", "texts")
    unit = "sentence" if hold_out == "phrases" else "text"
    held_out = f"held out of the training file by {unit}"
    titles = {
        "paper": ("a tenth of the training file", "another tenth of the training file"),
        "grouped": (held_out, f"another tenth of the training file, held out by {unit}"),
        "glue": (
            held_out,
            "GLUE's validation file" if glue else "the validation file",
        ),
        "files": (
            f"the validation file, or {held_out} if there is no validation or no test file",
            "the test file, or the validation file if there is none",
        ),
    }
    return titles[manifest.accuracy["split"]]
