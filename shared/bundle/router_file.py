"""Reads the router of a bundle, ``router.npz``: centroids, pool sizes and correctness heads.

Shape suffixes: D difficulties, E embedding size, C classes.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.bundle.correctness_heads import NEW_ROUTER, CorrectnessHeads
from shared.errors import BundleError
from shared.files import open_regular

LARGEST_BYTES = 256 * 1024 * 1024
"""Largest router; the arrays may be compressed, and this is their size in memory."""


@dataclass(frozen=True)
class Router:
    """Arrays of ``router.npz``; ``heads`` is None if there are no correctness heads."""

    centroids_DE: NDArray[np.float32]
    counts_D: NDArray[np.int64]
    heads: CorrectnessHeads | None


def read_router(file: Path, classes: int) -> Router:
    """Read and check a router for ``classes`` labels; raises `BundleError`."""
    arrays = _read_arrays(file)
    missing = [name for name in ("centroids", "counts") if name not in arrays]
    if missing:
        raise _unusable(file, f"it lacks {missing[0]}")
    if arrays["counts"].dtype.kind not in "iu" or arrays["centroids"].dtype.kind != "f":
        raise _unusable(file, "counts must be whole numbers and centroids numbers")
    counts_D = arrays["counts"].astype(np.int64)
    centroids_DE = arrays["centroids"].astype(np.float32)
    if counts_D.shape != (3,) or (counts_D < 0).any() or not (counts_D > 0).any():
        raise _unusable(file, "counts must be 3 numbers, none below 0 and one above")
    if centroids_DE.ndim != 2 or len(centroids_DE) != 3:
        raise _unusable(file, "centroids must be 3 rows")
    if not np.isfinite(centroids_DE[counts_D > 0]).all():
        raise _unusable(file, "the centroid of a pool with texts is not finite")
    heads = CorrectnessHeads.from_arrays(arrays)
    if heads is not None:
        wrong = heads.wrong_shape(centroids_DE.shape[1], classes)
        if wrong is not None:
            raise _unusable(file, f"{wrong}, in a bundle of {classes} labels")
    return Router(centroids_DE, counts_D, heads)


def _read_arrays(file: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with open_regular(file) as content:
            if sum(part.file_size for part in zipfile.ZipFile(content).infolist()) > LARGEST_BYTES:
                raise _unusable(file, f"it has more than {LARGEST_BYTES:,} bytes")
            content.seek(0)
            with np.load(content, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
    except BundleError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise errors without a common base class
        raise _unusable(file, f"{type(error).__name__}") from None


def _unusable(file: Path, problem: str) -> BundleError:
    return BundleError(f"bundle: {file} is not a router ({problem}); {NEW_ROUTER}")
