"""Texts to send: those of a file, else the bundle's samples, else sentences written for dimee."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from mobile_client.cli.text_options import read_texts, reader_from_options
from shared.domain import InputText
from shared.errors import InvalidInput
from shared.user_files import split_lines
from shared.wire import BundleDescription


def sample_sentences() -> list[str]:
    """Return the sentences in ``samples.txt``, from easy to hard; they were written for dimee."""
    text = files("testbed").joinpath("samples.txt").read_text(encoding="utf-8")
    return [line for line in split_lines(text) if line and not line.startswith("#")]


def texts_for(
    bundle: BundleDescription, file: Path | None = None, options: Mapping[str, Any] | None = None
) -> list[InputText]:
    """Return the texts of ``file``, else the bundle's samples, else `sample_sentences`.

    ``options`` are those of `mobile_client.cli.text_options.field_options`. Raises `InvalidInput`
    for a file with a wrong line, and for a bundle of pairs that has no samples.
    """
    if file is not None:
        return read_texts(file, bundle, options or {})
    if bundle.samples:
        return bundle.samples
    if bundle.pairs:
        raise InvalidInput(
            f"texts: the bundle ({bundle.task}) takes pairs of texts and contains no samples; give "
            "--texts FILE, or export the bundle again"
        )
    return [InputText(sentence) for sentence in sample_sentences()]


def read_labelled_texts(
    source: Path, bundle: BundleDescription, options: Mapping[str, Any]
) -> list[InputText]:
    """Return the texts of a file, or of ``validation.jsonl`` in a folder; each must have a label.

    Raises `InvalidInput` with the number of a line that is not valid.
    """
    file = source / "validation.jsonl" if source.is_dir() else source
    field = reader_from_options(bundle, options).fields[0].label
    return read_texts(file, bundle, dict(options) | {"label_field": field})
