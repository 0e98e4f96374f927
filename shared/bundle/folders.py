"""Folders of exported bundles: what may be replaced, and how."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from shared.bundle.manifest import MANIFEST
from shared.errors import InvalidInput


def check_target(target: Path, known_by: str = MANIFEST) -> None:
    """Create the folder above ``target``; raises `InvalidInput` if it holds other files.

    ``known_by`` is the file that a folder of this kind holds.
    """
    if target.exists() and not (target / known_by).is_file():
        empty = target.is_dir() and not any(target.iterdir())
        if not empty:
            raise InvalidInput(
                f"bundle: {target} exists and is not a bundle; choose a new or an empty folder"
            )
    target.parent.mkdir(parents=True, exist_ok=True)


def replace_bundle(folder: Path, target: Path) -> None:
    """Move a finished bundle to ``target``, replacing an older bundle."""
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)  # of an export that was interrupted here
        target.rename(old)
    folder.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def write_folder(files: Mapping[str, bytes], target: Path, known_by: str = MANIFEST) -> None:
    """Write the files, by their paths, to a temporary folder and move it to ``target``.

    It replaces an older folder of this kind; see `check_target`.
    """
    target = target.absolute()
    check_target(target, known_by)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as temporary:
        folder = Path(temporary) / "bundle"
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        replace_bundle(folder, target)
