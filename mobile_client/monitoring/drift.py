"""Says when what is answered is far from what was calibrated: by tier, and by client.

Both see the requests in the order in which they came, and neither changes a decision.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from mobile_client.monitoring.health import ShareReport
from shared.certificates.sequential_test import Alarm, binomial_upper
from shared.domain import Tier
from shared.errors import InvalidInput

FAR = 0.1
"""A tier's share is far from the calibrated one when it is more than this off."""
JUMP = 2.0
SLACK = 0.05
"""A client's escalations jumped when more than `JUMP` times the usual share and `SLACK` are."""
SETTLED = 100
"""Requests from which the usual share of escalations is taken, where none was calibrated."""
MAX_CLIENTS = 1_000


@lru_cache(maxsize=64)
def _at_least(count: int, n: int, alpha: float) -> float:
    """Clopper and Pearson's lower bound on a share of which ``count`` in ``n`` were seen."""
    return 1.0 - binomial_upper(n - count, n, alpha)


class TierShare:
    """One tier's share of the requests against the ``calibrated`` one, seen on ``n`` samples.

    Unused: the j-th run without this tier has a probability of at most (1 − s)^length, where s is
    Clopper and Pearson's lower bound at α on the calibrated share. It is alarming when that is at
    most α / (j (j + 1)); these sum to α over all runs, so that looking always costs nothing. Far:
    two `Alarm`s at α / 2, each a betting test that the share is within `FAR` on its side.
    """

    def __init__(self, tier: Tier, calibrated: float, n: int, alpha: float) -> None:
        self.tier = tier
        self.calibrated = calibrated
        self._alpha = alpha
        self._least = _at_least(round(calibrated * n), n, alpha)
        self.seen = self.hits = self._run = 0
        self._unused = False
        over, under = calibrated + FAR, 1 - (calibrated - FAR)
        self._over = Alarm(over, alpha / 2) if over < 1 else None
        self._under = Alarm(under, alpha / 2) if under < 1 else None

    def take(self, hit: bool) -> tuple[str, str] | None:
        """Take in whether this tier answered; returns the kind and sentence of a new alarm."""
        self.seen += 1
        self.hits += hit
        self._run = 0 if hit else self._run + 1
        was_far = self._far
        if self._over is not None:
            self._over.update(float(hit))
        if self._under is not None:
            self._under.update(float(not hit))
        if not self._unused and self._too_long():
            self._unused = True
            return "tier-unused", (
                f"the {self.tier} answered none of the last {self._run:,} requests, and "
                f"{self.calibrated:.1%} when it was calibrated; by chance that happens with a "
                f"probability of at most {self._alpha:g}"
            )
        if self._far and not was_far:
            return "tier-share", (
                f"the {self.tier} answered {self.hits / self.seen:.1%} of {self.seen:,} requests, "
                f"and {self.calibrated:.1%} when it was calibrated: more than {100 * FAR:g} "
                f"points off, which is wrong with a probability of at most {self._alpha:g}"
            )
        return None

    @property
    def _far(self) -> bool:
        return any(alarm is not None and alarm.raised for alarm in (self._over, self._under))

    def _too_long(self) -> bool:
        if self._least <= 0 or not self._run:
            return False
        number = self.hits + 1
        allowed = math.log(number * (number + 1) / self._alpha)
        return self._least >= 1 or -self._run * math.log1p(-self._least) >= allowed

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs, as JSON can hold it."""
        return {
            "seen": self.seen,
            "hits": self.hits,
            "run": self._run,
            "unused": self._unused,
            "over": self._over.state() if self._over else None,
            "under": self._under.state() if self._under else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken; raises `InvalidInput` for anything else."""
        try:
            counts = [int(state[name]) for name in ("seen", "hits", "run")]
            over, under = (
                None if state[name] is None else Alarm.restore(state[name])
                for name in ("over", "under")
            )
            unused = bool(state["unused"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"tier share: cannot be read ({type(error).__name__})") from None
        if (over is None, under is None) != (self._over is None, self._under is None):
            raise InvalidInput("tier share: is of another certificate")
        self.seen, self.hits, self._run = counts
        self._over, self._under, self._unused = over, under, unused


class Shares:
    """Every tier's share; nothing is watched where nothing was calibrated."""

    def __init__(self, calibrated: Mapping[Tier, float], n: int, alpha: float) -> None:
        self._tiers = {tier: TierShare(tier, share, n, alpha) for tier, share in calibrated.items()}

    def take(self, tier: Tier) -> list[tuple[str, str]]:
        """Take in who answered a request; returns the new alarms."""
        raised = [watch.take(watch.tier is tier) for watch in self._tiers.values()]
        return [one for one in raised if one is not None]

    def report(self) -> dict[str, ShareReport]:
        """Calibrated and present shares."""
        return {
            tier.value: ShareReport(
                calibrated=watch.calibrated, now=watch.hits / watch.seen if watch.seen else None
            )
            for tier, watch in self._tiers.items()
        }

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs."""
        return {tier.value: watch.state() for tier, watch in self._tiers.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where `state` was taken; raises `InvalidInput` for anything else."""
        if set(state) != {tier.value for tier in self._tiers}:
            raise InvalidInput("tier shares: are of another certificate")
        for tier, watch in self._tiers.items():
            watch.restore(state[tier.value])


class Clients:
    """Each client's share of escalated requests against the usual one: a betting test for each.

    The usual share is the ``calibrated`` one, else that of all requests when the client's test
    began, of at least `SETTLED`; a single client is thus compared with its own beginning. The j-th
    client's test has α / (j (j + 1)), so that all together raise a false alarm with probability at
    most α. The least recently seen clients beyond `MAX_CLIENTS` are forgotten.
    """

    def __init__(self, alpha: float, calibrated: float | None = None) -> None:
        self._alpha = alpha
        self._calibrated = calibrated
        self._seen = self._escalated = 0
        self._tests = 0
        self._alarms: OrderedDict[str, Alarm] = OrderedDict()

    def __len__(self) -> int:
        return len(self._alarms)

    def take(self, client: str, escalated: bool) -> str | None:
        """Take in one answered request; returns the sentence of a new alarm."""
        alarm = self._alarms.get(client)
        if alarm is None:
            alarm = self._begin(client)
        self._seen += 1
        self._escalated += escalated
        if alarm is None:
            return None
        self._alarms.move_to_end(client)
        if alarm.raised or not alarm.update(float(escalated)):
            return None
        usual = (alarm.bound - SLACK) / JUMP
        return (
            f"{client}: {alarm.mean or 0:.1%} of its {alarm.seen:,} requests were escalated, and "
            f"{usual:.1%} usually are; more than {JUMP:g} times that and {100 * SLACK:g} points, "
            f"which is wrong with a probability of at most {self._alpha:g}"
        )

    def _begin(self, client: str) -> Alarm | None:
        usual = self._calibrated
        if usual is None and self._seen >= SETTLED:
            usual = self._escalated / self._seen
        if usual is None or JUMP * usual + SLACK >= 1:
            return None
        self._tests += 1
        alpha = self._alpha / (self._tests * (self._tests + 1))
        alarm = self._alarms[client] = Alarm(JUMP * usual + SLACK, alpha)
        if len(self._alarms) > MAX_CLIENTS:
            self._alarms.popitem(last=False)
        return alarm
