"""What bounded losses prove of their mean: upper bounds at finite n, and an alarm for a stream.

A loss is at most 1 and at least ``LossKind.low``. Nothing is assumed of its distribution but that
the losses are independent draws in an order that does not hang on their values.

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
"""A bet never risks more than this share of its capital on one loss."""
HALVINGS = 32
"""Of an interval of at most 2: bounds are exact to 1e-9, and rounded up."""


@dataclass(frozen=True, slots=True)
class LossKind:
    """Losses in [``low``, 1]; ``binary``: 0 or 1, for which there is an exact bound."""

    low: float
    binary: bool


DISAGREEMENT = LossKind(0.0, binary=True)
"""1 where an answer is not the cloud's."""
DROP = LossKind(-1.0, binary=False)
"""1[cloud right] − 1[this right]: its mean is the drop of accuracy against all-cloud."""


def upper_bound(losses: Sequence[float] | Floats, delta: float, kind: LossKind) -> float:
    """The bound that the mean loss exceeds with probability at most ``delta``.

    Exact (`binomial_upper`) for binary losses, by betting for others; 1 without any loss. Never
    below the sample's mean. Raises `InvalidInput` for losses that are not of ``kind``.
    """
    losses_N = _checked(losses, delta, kind)
    if not len(losses_N):
        return 1.0
    if kind.binary:
        return binomial_upper(int(losses_N.sum()), len(losses_N), delta)
    mean = float(losses_N.mean())
    log_wealth = _log_wealth(losses_N, delta, kind.low)
    return max(_least(lambda bound: log_wealth(bound) >= -math.log(delta), mean), mean)


def certifies(losses: Sequence[float] | Floats, bound: float, delta: float, kind: LossKind) -> bool:
    """Whether `upper_bound` is at most ``bound``, in one step: the test of 'mean loss > bound'.

    Passes with probability at most ``delta`` where the mean loss is above ``bound``.
    """
    losses_N = _checked(losses, delta, kind)
    if bound >= 1:
        return True
    if not len(losses_N) or bound <= kind.low or losses_N.mean() > bound:
        return False
    if kind.binary:
        return binomial_tail(int(losses_N.sum()), len(losses_N), bound) <= delta
    return _log_wealth(losses_N, delta, kind.low)(bound) >= -math.log(delta)


def binomial_tail(errors: int, count: int, rate: float) -> float:
    """P(at most ``errors`` of ``count``) where each is an error with probability ``rate``."""
    if errors >= count or rate <= 0:
        return 1.0
    if rate >= 1:
        return 0.0
    k_N = np.arange(1, errors + 1)
    steps_N = np.log((count - k_N + 1) / k_N) + math.log(rate) - math.log1p(-rate)
    logs_N = np.concatenate([[0.0], np.cumsum(steps_N)]) + count * math.log1p(-rate)
    return min(1.0, float(np.exp(np.logaddexp.reduce(logs_N))))


def binomial_upper(errors: int, count: int, delta: float) -> float:
    """Clopper-Pearson's one-sided bound on the rate of errors: 1 − δ^(1/n) where there was none."""
    if not 0 <= errors <= count:
        raise InvalidInput(f"errors: {errors} of {count} is not possible")
    if errors == count:
        return 1.0
    if errors == 0:
        return -math.expm1(math.log(delta) / count)
    return _least(lambda rate: binomial_tail(errors, count, rate) <= delta, errors / count)


def _least(proved: Callable[[float], bool], low: float) -> float:
    """The least value in [low, 1] that is proved, rounded up; what is above it is proved too."""
    high = 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if proved(middle):
            high = middle
        else:
            low = middle
    return high


def _log_wealth(losses_N: Floats, delta: float, low: float) -> Callable[[float], float]:
    """By bound: the highest log capital of a gambler who bets that the mean is below the bound.

    If the mean is the bound or more, the capital is a supermartingale that starts at 1, and passes
    1/δ with probability at most δ. The bet of each loss is made from the losses before it.
    """
    x_N = (losses_N - low) / (1 - low)
    seen_N = np.arange(1, len(x_N) + 1)
    mean_N = (0.5 + np.cumsum(x_N)) / (seen_N + 1)
    variance_N = (0.25 + np.cumsum((x_N - mean_N) ** 2)) / (seen_N + 1)
    before_N = np.concatenate([[0.25], variance_N[:-1]])
    wish_N = np.sqrt(2 * math.log(1 / delta) / (len(x_N) * before_N))

    def at(bound: float) -> float:
        goal = (bound - low) / (1 - low)
        if goal >= 1:
            return math.inf
        bet_N = np.minimum(wish_N, LARGEST_BET / (1 - goal))
        return float(np.cumsum(np.log1p(bet_N * (goal - x_N))).max())

    return at


def _checked(losses: Sequence[float] | Floats, delta: float, kind: LossKind) -> Floats:
    if not 0 < delta < 1:
        raise InvalidInput(f"delta: {delta:g} is not between 0 and 1", field="delta")
    losses_N: Floats = np.asarray(losses, np.float64)
    fit_N = (losses_N >= kind.low) & (losses_N <= 1)
    if kind.binary:
        fit_N &= (losses_N == 0) | (losses_N == 1)
    if not fit_N.all():
        what = "0 or 1" if kind.binary else f"in [{kind.low:g}, 1]"
        raise InvalidInput(f"losses: {losses_N[~fit_N][0]:g} is not {what}", field="losses")
    return losses_N


class Alarm:
    """Watches audited losses and is raised when their mean is above ``bound``.

    While the mean given the past is at most ``bound``, it is ever raised, at any time, with
    probability at most ``alpha`` (Ville): look as often as you like. ``evidence`` is the capital of
    gamblers who bet on a higher mean with stakes of several sizes; each audit brings fresh ones, of
    the capital that was kept back, so that a late change is seen as well. Once raised it stays so.
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
        self._goal = (bound - kind.low) / (1 - kind.low)
        least = min(0.01, self._goal / 4)
        self._stakes = [float(stake) for stake in np.geomspace(least, 0.99, 16)]
        self._capital = [0.0] * len(self._stakes)

    @property
    def raised(self) -> bool:
        """Whether the bound is refuted."""
        return self.raised_at is not None

    @property
    def evidence(self) -> float:
        """What a capital of 1 has become; 1/alpha raises the alarm."""
        return sum(self._capital) + _kept(self.seen)

    @property
    def mean(self) -> float | None:
        """The mean of the losses up to the alarm, None before the first."""
        return self.total / self.seen if self.seen else None

    def update(self, loss: float) -> bool:
        """Take in one audited loss; returns whether the alarm is raised.

        Raises `InvalidInput` for a loss that is not of ``kind``, and changes nothing then.
        """
        low = self.kind.low
        if not low <= loss <= 1 or (self.kind.binary and loss not in (0, 1)):
            raise InvalidInput(f"loss: {loss:g} is not one of this alarm's", field="loss")
        if self.raised:
            return True
        fresh = (_kept(self.seen) - _kept(self.seen + 1)) / len(self._stakes)
        gain = (loss - low) / (1 - low) / self._goal - 1
        self._capital = [
            (capital + fresh) * (1 + stake * gain)
            for capital, stake in zip(self._capital, self._stakes, strict=True)
        ]
        self.seen += 1
        self.total += loss
        if self.evidence >= 1 / self.alpha:
            self.raised_at = self.seen
        return self.raised

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs, as JSON can hold it."""
        return {
            "bound": self.bound,
            "alpha": self.alpha,
            "low": self.kind.low,
            "binary": self.kind.binary,
            "seen": self.seen,
            "total": self.total,
            "raised_at": self.raised_at,
            "capital": list(self._capital),
        }

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Alarm:
        """The alarm as it was; raises `InvalidInput` for anything that `state` did not write."""
        try:
            kind = LossKind(float(state["low"]), bool(state["binary"]))
            alarm = cls(float(state["bound"]), float(state["alpha"]), kind)
            alarm.seen, alarm.total = int(state["seen"]), float(state["total"])
            alarm.raised_at = None if state["raised_at"] is None else int(state["raised_at"])
            capital = [float(value) for value in state["capital"]]
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"alarm: its state cannot be read ({type(error).__name__}); start a new one"
            ) from None
        fit = len(capital) == len(alarm._capital) and alarm.seen >= 0
        if not fit or not all(0 <= value < math.inf for value in [*capital, abs(alarm.total)]):
            raise InvalidInput("alarm: its state is damaged; start a new one")
        alarm._capital = capital
        return alarm


def _kept(seen: int) -> float:
    """The share of the capital that is not yet in play after ``seen`` losses; it falls slowly."""
    return 1 / (1 + math.log1p(seen))
