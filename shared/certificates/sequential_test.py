"""Tests of the mean of bounded losses: upper bounds at finite n, and a sequential test (`Alarm`).

A loss is at most 1 and at least ``LossKind.low``. The losses must be independent draws whose order
does not depend on their values; nothing else is assumed of their distribution.

Sources: Clopper & Pearson 1934 (exact for 0/1); Waudby-Smith & Ramdas 2024, 'Estimating means of
bounded random variables by betting' (predictable plug-in bets, section 3.3); Ville 1939; Shin,
Ramdas & Rinaldo 2024, 'E-detectors' (mixing over the time of the change).
Shape suffix: N losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidInput

Floats = NDArray[np.float64]

LARGEST_BET = 0.9
"""Largest share of its capital that a bet risks on one loss."""
HALVINGS = 32
"""Bisection steps on an interval of length 2 or less: bounds are exact to 1e-9 and rounded up."""


@dataclass(frozen=True, slots=True)
class LossKind:
    """Range of a loss: [``low``, 1]; ``binary`` losses are 0 or 1 and have an exact bound."""

    low: float
    binary: bool


DISAGREEMENT = LossKind(0.0, binary=True)
"""Loss of 1 for an answer that differs from the cloud's."""
DROP = LossKind(-1.0, binary=False)
"""Loss 1[cloud right] − 1[this right], whose mean is the drop in accuracy against all-cloud."""


def upper_bound(losses: Sequence[float] | Floats, delta: float, kind: LossKind) -> float:
    """Return a bound that the mean loss exceeds with probability at most ``delta``.

    The bound is exact (`binomial_upper`) for binary losses and comes from betting for others. It is
    1 without losses and never below the sample's mean. Raises `InvalidInput` for losses that are
    not of ``kind``.
    """
    losses_N = _checked_losses(losses, delta, kind)
    if not len(losses_N):
        return 1.0
    if kind.binary:
        return binomial_upper(int(losses_N.sum()), len(losses_N), delta)
    mean = float(losses_N.mean())
    log_wealth = _log_wealth(losses_N, delta, kind.low)
    return max(_smallest(lambda bound: log_wealth(bound) >= -math.log(delta), mean), mean)


def certifies(losses: Sequence[float] | Floats, bound: float, delta: float, kind: LossKind) -> bool:
    """Return whether `upper_bound` is at most ``bound``; a test of 'mean loss > bound'.

    If the mean loss is above ``bound``, the result is True with probability at most ``delta``.
    """
    losses_N = _checked_losses(losses, delta, kind)
    if bound >= 1:
        return True
    if not len(losses_N) or bound <= kind.low or losses_N.mean() > bound:
        return False
    if kind.binary:
        return binomial_tail(int(losses_N.sum()), len(losses_N), bound) <= delta
    return _log_wealth(losses_N, delta, kind.low)(bound) >= -math.log(delta)


def binomial_tail(errors: int, count: int, rate: float) -> float:
    """Return P(at most ``errors`` of ``count``) for independent errors of probability ``rate``."""
    if errors >= count or rate <= 0:
        return 1.0
    if rate >= 1:
        return 0.0
    k_N = np.arange(1, errors + 1)
    steps_N = np.log((count - k_N + 1) / k_N) + math.log(rate) - math.log1p(-rate)
    logs_N = np.concatenate([[0.0], np.cumsum(steps_N)]) + count * math.log1p(-rate)
    return min(1.0, float(np.exp(np.logaddexp.reduce(logs_N))))


def binomial_upper(errors: int, count: int, delta: float) -> float:
    """Return Clopper-Pearson's one-sided upper bound on the error rate.

    Without errors it is 1 − δ^(1/n).
    """
    if not 0 <= errors <= count:
        raise InvalidInput(f"errors: {errors} of {count} is not possible")
    if errors == count:
        return 1.0
    if errors == 0:
        return -math.expm1(math.log(delta) / count)
    return _smallest(lambda rate: binomial_tail(errors, count, rate) <= delta, errors / count)


def _smallest(holds: Callable[[float], bool], low: float) -> float:
    """Return the smallest value in [low, 1] for which ``holds`` is True, rounded up, by bisection.

    If ``holds`` is True for a value, it must be True for every larger one.
    """
    high = 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def _log_wealth(losses_N: Floats, delta: float, low: float) -> Callable[[float], float]:
    """Return a function from a bound to the highest log wealth of bets on 'mean < bound'.

    If the mean is at least the bound, the wealth is a supermartingale that starts at 1; it exceeds
    1/δ with probability at most δ. Each bet depends on earlier losses only.
    """
    x_N = (losses_N - low) / (1 - low)
    seen_N = np.arange(1, len(x_N) + 1)
    mean_N = (0.5 + np.cumsum(x_N)) / (seen_N + 1)
    variance_N = (0.25 + np.cumsum((x_N - mean_N) ** 2)) / (seen_N + 1)
    before_N = np.concatenate([[0.25], variance_N[:-1]])
    wanted_bet_N = np.sqrt(2 * math.log(1 / delta) / (len(x_N) * before_N))

    def log_wealth(bound: float) -> float:
        goal = (bound - low) / (1 - low)
        if goal >= 1:
            return math.inf
        bet_N = np.minimum(wanted_bet_N, LARGEST_BET / (1 - goal))
        return float(np.cumsum(np.log1p(bet_N * (goal - x_N))).max())

    return log_wealth


def _checked_losses(losses: Sequence[float] | Floats, delta: float, kind: LossKind) -> Floats:
    if not 0 < delta < 1:
        raise InvalidInput(f"delta: {delta:g} is not between 0 and 1", field="delta")
    losses_N: Floats = np.asarray(losses, np.float64)
    fit_N = (losses_N >= kind.low) & (losses_N <= 1)
    if kind.binary:
        fit_N &= (losses_N == 0) | (losses_N == 1)
    if not fit_N.all():
        allowed = "0 or 1" if kind.binary else f"in [{kind.low:g}, 1]"
        raise InvalidInput(f"losses: {losses_N[~fit_N][0]:g} is not {allowed}", field="losses")
    return losses_N


class Alarm:
    """Sequential test of audited losses, raised when their mean exceeds ``bound``.

    If the mean, given the past, is always at most ``bound``, the alarm is ever raised with
    probability at most ``alpha`` (Ville's inequality), however often it is checked. ``e_value`` is
    the wealth of bets on a higher mean with several stakes. Each loss starts further bets from the
    reserved wealth, so that a late change is detected as well. A raised alarm stays raised.
    """

    def __init__(self, bound: float, alpha: float, kind: LossKind = DISAGREEMENT) -> None:
        if not kind.low < bound < 1:
            raise InvalidInput(f"bound: {bound:g} is not between {kind.low:g} and 1", field="bound")
        if not 0 < alpha < 1:
            raise InvalidInput(f"alpha: {alpha:g} is not between 0 and 1", field="alpha")
        self.bound = bound
        self.alpha = alpha
        self.kind = kind
        self.seen = 0
        self.total = 0.0
        self.raised_at: int | None = None
        self._null_mean = (bound - kind.low) / (1 - kind.low)
        smallest = min(0.01, self._null_mean / 4)
        self._stakes = [float(stake) for stake in np.geomspace(smallest, 0.99, 16)]
        self._wealth = [0.0] * len(self._stakes)

    @property
    def raised(self) -> bool:
        """True if the test has rejected 'mean <= bound'."""
        return self.raised_at is not None

    @property
    def e_value(self) -> float:
        """Current wealth, from an initial wealth of 1; the alarm is raised at 1/alpha."""
        return sum(self._wealth) + _reserve(self.seen)

    @property
    def mean(self) -> float | None:
        """Mean of the losses until the alarm was raised; None before the first loss."""
        return self.total / self.seen if self.seen else None

    def update(self, loss: float) -> bool:
        """Add one audited loss; return whether the alarm is raised.

        Raises `InvalidInput`, without a change, for a loss that is not of ``kind``.
        """
        low = self.kind.low
        if not low <= loss <= 1 or (self.kind.binary and loss not in (0, 1)):
            raise InvalidInput(f"loss: {loss:g} is not a loss of this alarm's kind", field="loss")
        if self.raised:
            return True
        new_bet = (_reserve(self.seen) - _reserve(self.seen + 1)) / len(self._stakes)
        gain = (loss - low) / (1 - low) / self._null_mean - 1
        self._wealth = [
            (wealth + new_bet) * (1 + stake * gain)
            for wealth, stake in zip(self._wealth, self._stakes, strict=True)
        ]
        self.seen += 1
        self.total += loss
        if self.e_value >= 1 / self.alpha:
            self.raised_at = self.seen
        return self.raised

    def state(self) -> dict[str, Any]:
        """Return the state for `restore`, as a JSON object."""
        return {
            "bound": self.bound,
            "alpha": self.alpha,
            "low": self.kind.low,
            "binary": self.kind.binary,
            "seen": self.seen,
            "total": self.total,
            "raised_at": self.raised_at,
            "wealth": list(self._wealth),
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Alarm:
        """Return the alarm of a `state`; raises `InvalidInput` if the state is damaged."""
        try:
            kind = LossKind(float(state["low"]), bool(state["binary"]))
            alarm = cls(float(state["bound"]), float(state["alpha"]), kind)
            alarm.seen, alarm.total = int(state["seen"]), float(state["total"])
            alarm.raised_at = None if state["raised_at"] is None else int(state["raised_at"])
            wealth = [float(value) for value in state["wealth"]]
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"alarm: its state cannot be read ({type(error).__name__}); start a new one"
            ) from None
        valid = len(wealth) == len(alarm._wealth) and alarm.seen >= 0
        if not valid or not all(0 <= value < math.inf for value in [*wealth, abs(alarm.total)]):
            raise InvalidInput("alarm: its state is damaged; start a new one")
        alarm._wealth = wealth
        return alarm


def _reserve(seen: int) -> float:
    """Return the share of the initial wealth that is not yet bet after ``seen`` losses."""
    return 1 / (1 + math.log1p(seen))
