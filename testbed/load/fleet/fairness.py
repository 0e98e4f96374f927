"""Jain's fairness index over devices, and what chance alone would make of it.

``J = (Σ x)² / (n Σ x²)`` is 1 if all devices get the same x, and 1/n if one gets all (Jain, Chiu,
Hawe 1984). With few requests a device, J is below 1 also in a fair system, because means of few
values differ. The reference deals the requests of a class out to its devices at random, as many to
each as it had, and computes J of that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SHUFFLES = 50
Floats = NDArray[np.float64]


def jain(values: Sequence[float] | Floats) -> float | None:
    """Return Jain's index of non-negative values; None if there is none, or all are 0."""
    x = np.asarray(values, float)
    squares = float((x**2).sum())
    return float(x.sum()) ** 2 / (len(x) * squares) if squares else None


def means_by_device(values: Floats, devices: NDArray[np.int64]) -> Floats:
    """Return the mean of each device that has a value."""
    _, numbers = np.unique(devices, return_inverse=True)
    result: Floats = np.bincount(numbers, values) / np.bincount(numbers)
    return result


def fairness(
    values: Floats, devices: NDArray[np.int64], classes: NDArray[np.int64], seed: int
) -> dict[str, float | None]:
    """Return Jain's index of the devices' means, and its mean when requests are dealt at random.

    ``values``, ``devices`` and ``classes`` have one element for each request. Requests stay in
    their class.
    """
    if not len(values):
        return {"jain": None, "by_chance": None}
    order = np.argsort(classes, kind="stable")
    values, devices, classes = values[order], devices[order], classes[order]
    rng = np.random.default_rng(seed)
    starts = np.flatnonzero(np.diff(classes, prepend=classes[0] - 1))
    indexes = []
    for _ in range(SHUFFLES):
        dealt = np.concatenate([rng.permutation(part) for part in np.split(values, starts[1:])])
        index = jain(means_by_device(dealt, devices))
        if index is not None:
            indexes.append(index)
    return {
        "jain": jain(means_by_device(values, devices)),
        "by_chance": float(np.mean(indexes)) if indexes else None,
    }
