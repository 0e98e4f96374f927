"""Paired test of the accuracy that each exit loses by the exported precision.

On the same texts, ``lost`` counts those that the exit classifies right in fp32 and wrong in the
bundle, ``gained`` the reverse; the loss is their difference as a share of the texts. An exit is
refused if the 95 % interval of its loss lies above the allowed loss. The intervals of all l exits
hold at once (Bonferroni): each end has the level 0.05 / (2 · l).

The test of 'the loss is at most Δ' is the estimated p-value of Lloyd & Moldovan 2008 ('A more
powerful exact test of noninferiority from binary matched-pairs data', Statistics in Medicine 27):
the exact probability of a difference at least as large, where the share of gained texts is the
maximum likelihood estimate under a loss of Δ (Tango 1998, Statistics in Medicine 17). For
Δ = 0 it is close to McNemar's exact test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binom

from lab.evaluate.samples import Samples
from shared.errors import InvalidInput

MAX_LOSS = 0.5
"""Largest loss of accuracy by the exported precision at any exit, in points."""
LEVEL = 0.05
"""Probability that the interval of any exit does not contain its loss."""
DETECTABLE = 1.0
"""Points above the allowed loss which the check should be able to refuse."""
HALVINGS = 30
RARE = 1e-12
"""Probability of the counts of gained texts that are left out at each side."""


@dataclass(frozen=True)
class ExitLoss:
    """Loss of one exit on ``texts`` texts; ``low`` and ``high`` bound it, in points."""

    exit: int
    texts: int
    lost: int
    gained: int
    low: float
    high: float

    @property
    def points(self) -> float:
        """The measured loss in points."""
        return 100 * (self.lost - self.gained) / self.texts


def exit_losses(full: Samples, shipped: Samples) -> list[ExitLoss]:
    """Return the loss of each exit, measured on the same texts in fp32 and as exported."""
    right_NE, shipped_NE = (
        samples.answers_NE == samples.labels_N[:, None] for samples in (full, shipped)
    )
    lost_E = (right_NE & ~shipped_NE).sum(0).tolist()
    gained_E = (~right_NE & shipped_NE).sum(0).tolist()
    return losses_of_counts(lost_E, gained_E, len(full))


def losses_of_counts(lost_E: Sequence[int], gained_E: Sequence[int], texts: int) -> list[ExitLoss]:
    """Return the loss of each exit with its interval."""
    level = _level(len(lost_E))
    return [
        ExitLoss(
            number,
            texts,
            lost,
            gained,
            round(100 * lower_bound(lost, gained, texts, level), 4),
            round(-100 * lower_bound(gained, lost, texts, level), 4),
        )
        for number, (lost, gained) in enumerate(zip(lost_E, gained_E, strict=True), start=1)
    ]


def loss_table(losses: Sequence[ExitLoss], max_loss: float) -> dict[str, Any]:
    """Return the losses for the manifest; ``interval`` in points."""
    return {
        "max_loss": max_loss,
        "lost": [loss.lost for loss in losses],
        "gained": [loss.gained for loss in losses],
        "interval": [[loss.low, loss.high] for loss in losses],
    }


def check_losses(losses: Sequence[ExitLoss], max_loss: float) -> None:
    """Raise `InvalidInput` if the interval of an exit lies above ``max_loss`` points."""
    refused = [loss for loss in losses if loss.low > max_loss]
    if not refused:
        return
    worst = max(refused, key=lambda loss: (loss.low, loss.exit))
    others = [str(loss.exit) for loss in refused if loss is not worst]
    more = f"; so do exits {', '.join(others)}" if others else ""
    enough = math.floor(2 * max(loss.low for loss in refused) + 1) / 2
    raise InvalidInput(
        f"precision: exit {worst.exit} loses {worst.points:.2f} points of accuracy by the "
        f"exported precision, where {max_loss:g} are allowed (of {worst.texts:,} texts, "
        f"{worst.lost:,} are right in fp32 only and {worst.gained:,} in the bundle only; the 95 % "
        f"interval over all exits is {worst.low:.2f} to {worst.high:.2f} points{more}); train "
        "longer or on more data, so that fewer answers are near a tie, or accept the loss with "
        f"--max-loss {enough:g}; the bundle was not written",
        field="max_loss",
    )


def few_texts_warning(texts: int, exits: int, max_loss: float) -> str | None:
    """Return a sentence if a loss of `DETECTABLE` points more than allowed would not be refused."""
    if max_loss + DETECTABLE >= 100 or texts >= (needed := texts_needed(exits, max_loss)):
        return None
    level = _level(exits)
    counts = range(1, texts + 1)
    least = next((n for n in counts if p_value(n, 0, texts, max_loss / 100) <= level), None)
    power = (
        "it cannot refuse anything"
        if least is None
        else f"it refuses a loss of {100 * least / texts:.1f} points or more at an exit"
    )
    return (
        f"the bundle's precision was checked on {texts:,} reported "
        f"text{'' if texts == 1 else 's'}, where {power}; to refuse "
        f"{max_loss + DETECTABLE:g} points it needs {needed:,} texts"
    )


def texts_needed(exits: int, max_loss: float) -> int:
    """Return the least number of texts on which `DETECTABLE` points above the limit are refused.

    The count is for texts that are lost and none that are gained.
    """
    share, level = (max_loss + DETECTABLE) / 100, _level(exits)
    lost = 1
    while p_value(lost, 0, texts := math.ceil(lost / share), max_loss / 100) > level:
        lost += 1
    return texts


def lower_bound(lost: int, gained: int, texts: int, level: float) -> float:
    """Return the largest Δ that is refuted at ``level``, as a share of the texts, or −1."""
    if not texts:
        return -1.0
    low, high = -1.0, (lost - gained) / texts
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if p_value(lost, gained, texts, middle) <= level:
            low = middle
        else:
            high = middle
    return low


def p_value(lost: int, gained: int, texts: int, delta: float) -> float:
    """Return the p-value of 'the loss is at most ``delta``', a share of the texts."""
    gain = _gained_share(lost, gained, texts, delta)
    loss = min(max(gain + delta, 0.0), 1.0 - gain)
    first, last = binom.ppf(RARE, texts, gain), binom.isf(RARE, texts, gain)
    gained_G = np.arange(max(0, int(first)), int(last) + 1)
    least_G = lost - gained + gained_G
    rate = 1.0 if gain >= 1 else min(1.0, loss / (1 - gain))
    tail_G = binom.sf(least_G - 1, texts - gained_G, rate)
    return min(1.0, float(binom.pmf(gained_G, texts, gain) @ tail_G) + 2 * RARE)


def _gained_share(lost: int, gained: int, texts: int, delta: float) -> float:
    """Return the most likely share of gained texts if the loss is ``delta`` (Tango 1998)."""
    a = 2.0 * texts
    b = (2 * texts - lost + gained) * delta - lost - gained
    c = -gained * delta * (1 - delta)
    share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    return min(max(share, 0.0, -delta), 1.0, (1.0 - delta) / 2)


def _level(exits: int) -> float:
    return LEVEL / (2 * exits)
