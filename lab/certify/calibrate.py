"""Chooses thresholds with a promise: ordered on one half of the samples, tested on the other.

Fixed-sequence testing (Angelopoulos et al. 2025, 'Learn then Test', section 3.2): settings are
tested from the safest to the cheapest, each at the whole level δ, up to the first that fails; the
last that passed is returned. A setting that breaks the promise is returned only if a test of one
that breaks it passed, the first such in the sequence: with probability δ at most.
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
"""Steps of the sequence are apart by this share of all-cloud's cost: the fewer, the closer bounds
that hold for all of them at once."""
ENOUGH = 200_000
CHANCE = 0.8
DRAWS = 40


@dataclass(frozen=True)
class Losses:
    """One way to bound the promised mean: ``loss_SN``, whose mean is that or more."""

    kind: LossKind
    loss_SN: Floats


@dataclass(frozen=True)
class Candidates:
    """What S settings lose and cost (λ) on N samples; ``ways`` of bounding it, the promised first.

    ``all_cloud`` is the cost of a request that the cloud answers.
    """

    ways: tuple[Losses, ...]
    cost_SN: Floats
    all_cloud: float

    @property
    def count(self) -> int:
        """N."""
        return int(self.cost_SN.shape[1])


@dataclass(frozen=True)
class Choice:
    """``settings`` from the safest to the cheapest; the first ``passed`` of them passed.

    ``ways`` says how each that was tested was bounded: those that passed, and the one that failed.
    """

    settings: list[int]
    ways: list[int]
    passed: int

    @property
    def setting(self) -> int | None:
        """The last setting that passed; None where the first failed."""
        return self.settings[self.passed - 1] if self.passed else None


def halves(count: int, seed: int = 0) -> tuple[Rows, Rows]:
    """Rows to sweep and rows to judge, drawn at random: files are often sorted."""
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def sequence_of(candidates: Candidates, sweep: Rows) -> list[int]:
    """Order the settings by their risk on the sweep half, and leave out what is not cheaper.

    The risk is the mean loss and what chance may add to it (1.645 standard errors): it orders and
    proves nothing. Of equal risks the dearer comes first; every further step is cheaper.
    """
    loss_SN = candidates.ways[0].loss_SN[:, sweep]
    cost_S = candidates.cost_SN[:, sweep].mean(1)
    risk_S = loss_SN.mean(1) + 1.645 * loss_SN.std(1) / np.sqrt(len(sweep))
    settings: list[int] = []
    least = candidates.all_cloud
    for setting in np.lexsort((-cost_S, risk_S)).tolist():
        if cost_S[setting] <= least - STEP * candidates.all_cloud:
            settings.append(setting)
            least = float(cost_S[setting])
    return settings


def _closest(candidates: Candidates, setting: int, sweep: Rows, delta: float) -> int:
    """The way with the least bound on the sweep half, which may choose anything."""
    if len(candidates.ways) == 1:
        return 0
    bounds = [upper_bound(way.loss_SN[setting, sweep], delta, way.kind) for way in candidates.ways]
    return int(np.argmin(bounds))


def choose(
    candidates: Candidates, sweep: Rows, judged: Rows, max_drop: float, delta: float
) -> Choice:
    """The last setting of the sequence that passed: its mean loss is at most ``max_drop``.

    ``max_drop`` is a share of requests. The promise fails with probability at most ``delta``
    where ``judged`` are independent draws that had no part in anything before.
    """
    choice = Choice(sequence_of(candidates, sweep), [], 0)
    for setting in choice.settings:
        way = _closest(candidates, setting, sweep, delta)
        choice.ways.append(way)
        losses = candidates.ways[way]
        if not certifies(losses.loss_SN[setting, judged], max_drop, delta, losses.kind):
            break
        choice = replace(choice, passed=choice.passed + 1)
    return choice


def tier_bounds(
    candidates: Candidates,
    choice: Choice,
    tier_N: NDArray[Any],
    judged: Rows,
    delta: float,
    tiers: Iterable[Any],
) -> dict[Any, tuple[int, float]]:
    """Of the chosen setting, each tier's answers among the judged and the bound of their mean loss.

    ``tier_N`` says who answers each sample. With probability 1 − ``delta`` all bounds hold:
    Bonferroni over ``tiers`` and over the settings, any of which might have been chosen.
    """
    losses = candidates.ways[choice.ways[choice.passed - 1]]
    tiers = tuple(tiers)
    each = delta / (len(tiers) * len(choice.settings))
    bounds = {}
    for tier in tiers:
        loss_N = losses.loss_SN[choice.setting, judged][tier_N[judged] == tier]
        bounds[tier] = (len(loss_N), upper_bound(loss_N, each, losses.kind))
    return bounds


def needed(loss_N: Floats, max_drop: float, delta: float, kind: LossKind) -> int | None:
    """How many judged samples like these certify ``max_drop`` in four of five draws.

    None where `ENOUGH` do not. An estimate to plan with: the draws are from ``loss_N`` itself.
    """
    if loss_N.mean() >= max_drop:
        return None

    def enough(count: int) -> bool:
        rng = np.random.default_rng(0)
        draws = DRAWS if loss_N.any() else 1
        passed = sum(
            certifies(rng.choice(loss_N, count), max_drop, delta, kind) for _ in range(draws)
        )
        return passed >= CHANCE * draws

    return _least_count(enough, 200 if loss_N.any() else ENOUGH)


def _least_count(enough: Callable[[int], bool], fineness: int) -> int | None:
    """The least count that is enough, to one part in ``fineness``."""
    high = 1
    while not enough(high):
        if high >= ENOUGH:
            return None
        high = min(2 * high, ENOUGH)
    low = high // 2
    while high - low > max(1, high // fineness):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
