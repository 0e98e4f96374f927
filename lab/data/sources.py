"""Sources of labelled data: a file, a folder with a file for each split, or a hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.data.readers import READERS, Row, Table, read_table
from shared.errors import InvalidInput

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


def open_table(source: str, split: str, hub_split: str | None = None) -> Table:
    """Open one split of ``source``.

    ``source`` is a folder that holds ``SPLIT.csv`` (or another of the `READERS`), a file, which is
    used for any split, or a hub's data set, as ``owner/name`` or ``owner/name:config``, whose split
    is ``hub_split``. Raises `InvalidInput` if there is none.
    """
    path = Path(source)
    if path.is_file():
        return read_table(path)
    if path.is_dir():
        return read_table(_file_of(path, split))
    if ":" in source or _is_hub_name(source):
        return _open_hub(source, hub_split or split)
    raise InvalidInput(
        f"data: {source!r} is neither a folder with {split}.jsonl (or .csv, .tsv, .parquet), nor a "
        "file, nor a hub's owner/name:config; give one of these"
    )


def columns_of(source: str) -> tuple[str, ...]:
    """Return the columns of the training data, or the fields of its first row."""
    table = open_table(source, "train")
    if table.columns is not None:
        return table.columns
    return next((tuple(row.values) for row in table.rows), ())


def has_split(source: str, split: str) -> bool:
    """Return whether a folder has a file of ``split``; a file and a hub's data set have none."""
    path = Path(source)
    return path.is_dir() and bool(_files_of(path, split))


def is_file(source: str) -> bool:
    """Return whether ``source`` is one file, which has no splits."""
    return Path(source).is_file()


def _is_hub_name(source: str) -> bool:
    """Return whether ``source`` can only be a hub's name: it is no path of a file or folder."""
    path = Path(source)
    is_path = path.parent.exists() or path.suffix.lower() in READERS
    return _HUB_NAME.fullmatch(source) is not None and not is_path


def _files_of(folder: Path, split: str) -> list[Path]:
    files = (folder / f"{split}{suffix}" for suffix in READERS)
    return [file for file in files if file.is_file() or file.is_symlink()]


def _file_of(folder: Path, split: str) -> Path:
    files = _files_of(folder, split)
    if not files:
        raise InvalidInput(
            f"data: {folder / split}.jsonl does not exist; give a folder that holds {split}.jsonl, "
            ".csv, .tsv or .parquet"
        )
    if len(files) > 1:
        names = " and ".join(file.name for file in files)
        raise InvalidInput(f"data: {folder} holds {names}; keep one of them")
    return files[0]


def _open_hub(source: str, split: str) -> Table:
    import datasets

    name, _, config = source.partition(":")
    try:
        loaded = datasets.load_dataset(name, config or None, split=split)
    except Exception as error:  # the hub client raises many kinds of exceptions
        raise InvalidInput(
            f"data: {source!r} could not be loaded from a hub ({type(error).__name__}); "
            "without a hub give a folder of JSON lines"
        ) from error
    class_names = {
        field: tuple(feature.names)
        for field, feature in loaded.features.items()
        if isinstance(feature, datasets.ClassLabel) and feature.names
    }
    return Table(f"{source} ({split})", tuple(loaded.column_names), _hub_rows(loaded), class_names)


def _hub_rows(loaded: Any) -> Iterator[Row]:
    for number, values in enumerate(loaded, start=1):
        yield Row(number, None, values)
