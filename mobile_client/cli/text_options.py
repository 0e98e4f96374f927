"""Options of the commands that read texts from a file: format and names of the fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from shared.domain import InputText
from shared.text_files import TEXT_FORMATS, FieldNames, TextFormat, TextReader
from shared.wire import BundleDescription

Command = TypeVar("Command", bound=Callable[..., Any])
_OPTIONS = {"text_field": "text", "pair_field": "pair", "label_field": "label"}


def field_options(labels: bool = True) -> Callable[[Command], Command]:
    """Add ``--input-format``, ``--text-field``, ``--pair-field``, and ``--label-field`` if wanted.

    `reader_from_options` takes their values.
    """

    def add(command: Command) -> Command:
        names = ["text", "pair", *(["label"] if labels else [])]
        for name in reversed(names):
            what = {"text": "text", "pair": "second text of a pair", "label": "label"}[name]
            command = click.option(
                f"--{name}-field",
                help=f"Field or column of the {what}.  [default: as in training, or {name}]",
            )(command)
        return click.option(
            "--input-format",
            type=click.Choice(TEXT_FORMATS),
            help="Format of the texts.  [default: by the file's suffix; else tsv for a bundle of "
            "pairs, and lines for one of single texts]",
        )(command)

    return add


def reader_from_options(
    bundle: BundleDescription, options: Mapping[str, Any], with_labels: bool = True
) -> TextReader:
    """Return the reader for a bundle; labels are left unread unless ``with_labels``.

    Fields have the names of the options, else those of the bundle's training, else the standard
    names of `FieldNames`.
    """
    given = {name: options[key] for key, name in _OPTIONS.items() if options.get(key)}
    candidates = (FieldNames(**bundle.fields), FieldNames())
    return TextReader(
        bundle.pairs,
        bundle.labels if with_labels else None,
        tuple(dict.fromkeys(replace(names, **given) for names in candidates)),
        label_required="label" in given,
    )


def read_texts(
    file: Path, bundle: BundleDescription, options: Mapping[str, Any]
) -> list[InputText]:
    """Return the texts of a file for a bundle; raises `InvalidInput` with the line's number."""
    kind: TextFormat | None = options.get("input_format")
    return reader_from_options(bundle, options).read_file(file, kind)
