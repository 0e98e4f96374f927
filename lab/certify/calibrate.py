"""Choose thresholds with a certified loss: order on one half of the samples, test on the other.

Fixed-sequence testing (Angelopoulos et al. 2025, 'Learn then Test', section 3.2): settings are
tested from the safest to the cheapest, each at the whole level δ, up to the first that fails; the
last that passed is returned. A setting above the limit is returned only if the first setting above
the limit in the sequence passed its test, which has probability δ at most.
Shape suffixes: S settings, N samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.certificates.sequential_test import LossKind, certifies, upper_bound

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

STEP = 0.01
"""Least difference of cost between steps of the sequence, as a share of all-cloud's cost. Fewer
steps give tighter bounds that hold for all of them at once."""
MAX_SAMPLES = 200_000
"""Largest number of samples that `samples_needed` considers."""
SUCCESS_SHARE = 0.8
"""Share of draws that must certify the limit in `samples_needed`."""
TRIALS = 40
"""Number of draws in `samples_needed`."""


@dataclass(frozen=True)
class LossTable:
    """Losses ``loss_SN`` whose mean is at least the certified mean loss, and their ``kind``."""

    kind: LossKind
    loss_SN: Floats


@dataclass(frozen=True)
class Candidates:
    """Losses and costs (λ) of S settings on N samples.

    The first of ``losses`` is the certified one; a bound of another also bounds it. ``all_cloud``
    is the cost of a request that the cloud answers.
    """

    losses: tuple[LossTable, ...]
    cost_SN: Floats
    all_cloud: float

    @property
    def count(self) -> int:
        """Number of samples, N."""
        return int(self.cost_SN.shape[1])


@dataclass(frozen=True)
class Choice:
    """``settings`` from the safest to the cheapest; the first ``passed`` of them passed.

    ``loss_indices`` has, for each tested setting, the index of the losses that bounded it.
    """

    settings: list[int]
    loss_indices: list[int]
    passed: int

    @property
    def setting(self) -> int | None:
        """The last setting that passed; None if the first failed."""
        return self.settings[self.passed - 1] if self.passed else None


def split_rows(count: int, seed: int = 0) -> tuple[Rows, Rows]:
    """Return random rows to order the settings, and the other rows to test them."""
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def order_settings(candidates: Candidates, ordering_rows: Rows) -> list[int]:
    """Order the settings by their risk on ``ordering_rows``, each cheaper than the one before.

    The risk is the mean loss plus 1.645 standard errors; it is used for the order alone. Of equal
    risks the more expensive setting comes first.
    """
    loss_SN = candidates.losses[0].loss_SN[:, ordering_rows]
    cost_S = candidates.cost_SN[:, ordering_rows].mean(1)
    risk_S = loss_SN.mean(1) + 1.645 * loss_SN.std(1) / np.sqrt(len(ordering_rows))
    settings: list[int] = []
    least = candidates.all_cloud
    for setting in np.lexsort((-cost_S, risk_S)).tolist():
        if cost_S[setting] <= least - STEP * candidates.all_cloud:
            settings.append(setting)
            least = float(cost_S[setting])
    return settings


def _tightest_losses(
    candidates: Candidates, setting: int, ordering_rows: Rows, delta: float
) -> int:
    """Return the index of the losses with the least bound on ``ordering_rows``."""
    if len(candidates.losses) == 1:
        return 0
    bounds = [
        upper_bound(losses.loss_SN[setting, ordering_rows], delta, losses.kind)
        for losses in candidates.losses
    ]
    return int(np.argmin(bounds))


def choose(
    candidates: Candidates, ordering_rows: Rows, test_rows: Rows, max_drop: float, delta: float
) -> Choice:
    """Return the last setting of the sequence with a certified mean loss of at most ``max_drop``.

    ``max_drop`` is a share of requests. The certificate is wrong with probability at most ``delta``
    if ``test_rows`` are independent draws that were used for nothing before.
    """
    choice = Choice(order_settings(candidates, ordering_rows), [], 0)
    for setting in choice.settings:
        index = _tightest_losses(candidates, setting, ordering_rows, delta)
        choice.loss_indices.append(index)
        losses = candidates.losses[index]
        if not certifies(losses.loss_SN[setting, test_rows], max_drop, delta, losses.kind):
            break
        choice = replace(choice, passed=choice.passed + 1)
    return choice


def tier_bounds(
    candidates: Candidates,
    choice: Choice,
    tier_N: NDArray[Any],
    test_rows: Rows,
    delta: float,
    tiers: Iterable[Any],
) -> dict[Any, tuple[int, float]]:
    """Return each tier's number of answers and the bound of their mean loss, at the chosen setting.

    ``tier_N`` is the answering tier of each sample. With probability 1 − ``delta`` all bounds hold
    (Bonferroni over ``tiers`` and over the settings, any of which might have been chosen).
    """
    losses = candidates.losses[choice.loss_indices[choice.passed - 1]]
    tiers = tuple(tiers)
    each = delta / (len(tiers) * len(choice.settings))
    bounds = {}
    for tier in tiers:
        loss_N = losses.loss_SN[choice.setting, test_rows][tier_N[test_rows] == tier]
        bounds[tier] = (len(loss_N), upper_bound(loss_N, each, losses.kind))
    return bounds


def samples_needed(loss_N: Floats, max_drop: float, delta: float, kind: LossKind) -> int | None:
    """Estimate how many test samples like these certify ``max_drop`` in `SUCCESS_SHARE` of draws.

    None if `MAX_SAMPLES` are not enough. The draws are from ``loss_N`` itself.
    """
    if loss_N.mean() >= max_drop:
        return None

    def enough(count: int) -> bool:
        rng = np.random.default_rng(0)
        draws = TRIALS if loss_N.any() else 1
        passed = sum(
            certifies(rng.choice(loss_N, count), max_drop, delta, kind) for _ in range(draws)
        )
        return passed >= SUCCESS_SHARE * draws

    return _least_count(enough, 200 if loss_N.any() else MAX_SAMPLES)


def _least_count(enough: Callable[[int], bool], resolution: int) -> int | None:
    """Return the least count that is enough, to one part in ``resolution``, or None."""
    high = 1
    while not enough(high):
        if high >= MAX_SAMPLES:
            return None
        high = min(2 * high, MAX_SAMPLES)
    low = high // 2
    while high - low > max(1, high // resolution):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
