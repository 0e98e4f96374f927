"""Changed copies of the shipped bundle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lab.export.samples import write_samples
from shared.bundle.manifest import MANIFEST, ROUTER, SAMPLES
from shared.domain import InputText
from tests.support.paths import BUNDLE


def linked_bundle(folder: Path) -> Path:
    """Make a folder with links to the files of the shipped bundle, and return it."""
    return shutil.copytree(BUNDLE, folder, copy_function=os.symlink)


def bundle_without_heads(folder: Path, counts: tuple[int, int, int] | None = None) -> Path:
    """Write a copy of the shipped bundle without correctness heads, and return its folder.

    ``counts`` replaces the sizes of the pools; a pool of size 0 gets no centroid.
    """
    shutil.copytree(BUNDLE, folder, copy_function=os.symlink)
    with np.load(BUNDLE / ROUTER, allow_pickle=False) as arrays:
        centroids_DH, counts_D = arrays["centroids"], arrays["counts"]
    if counts is not None:
        counts_D = np.array(counts)
        centroids_DH[counts_D == 0] = np.nan
    (folder / ROUTER).unlink()
    np.savez(folder / ROUTER, centroids=centroids_DH, counts=counts_D)
    list_file(folder, ROUTER)
    return folder


def bundle_with_samples(folder: Path, samples: Sequence[InputText]) -> Path:
    """Write a copy of the shipped bundle with these sample texts, and return its folder."""
    shutil.copytree(BUNDLE, folder, copy_function=os.link)
    write_samples(samples, folder / SAMPLES)
    list_file(folder, SAMPLES)
    return folder


def list_file(folder: Path, name: str) -> None:
    """Write the checksum of a file into the manifest."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).write_text(json.dumps(manifest))
