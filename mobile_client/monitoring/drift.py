"""Drift detection: compares answered requests with the calibration, by tier and by client.

The tests take the requests in the order of arrival. Their alarms do not change decisions.
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

MAX_SHARE_CHANGE = 0.1
"""Alarm ``tier-share`` is raised if a tier's share differs from the calibrated one by more."""
ESCALATION_FACTOR = 2.0
ESCALATION_MARGIN = 0.05
"""Alarm ``client`` is raised if a client's share of escalations is above `ESCALATION_FACTOR` times
the usual share plus `ESCALATION_MARGIN`."""
MIN_REQUESTS = 100
"""Without calibration, the usual share of escalations is known after this many requests."""
MAX_CLIENTS = 1_000


@lru_cache(maxsize=64)
def _lower_bound(count: int, n: int, alpha: float) -> float:
    """Return Clopper and Pearson's lower bound on a share, from ``count`` hits in ``n``."""
    return 1.0 - binomial_upper(n - count, n, alpha)


class TierShare:
    """Test of one tier's share of requests against the ``calibrated`` share of ``n`` samples.

    Alarm ``tier-unused``: the j-th run of requests without this tier has a probability of at most
    (1 − s)^length, where s is Clopper and Pearson's lower bound at α on the calibrated share. The
    alarm is raised when this is at most α / (j (j + 1)), which sums to α over all runs.

    Alarm ``tier-share``: two sequential tests at α / 2 that the share is at most `MAX_SHARE_CHANGE`
    above and below the calibrated one.
    """

    def __init__(self, tier: Tier, calibrated: float, n: int, alpha: float) -> None:
        self.tier = tier
        self.calibrated = calibrated
        self._alpha = alpha
        self._smallest_share = _lower_bound(round(calibrated * n), n, alpha)
        self.seen = self.hits = self._run = 0
        self._unused = False
        over, under = calibrated + MAX_SHARE_CHANGE, 1 - (calibrated - MAX_SHARE_CHANGE)
        self._over = Alarm(over, alpha / 2) if over < 1 else None
        self._under = Alarm(under, alpha / 2) if under < 1 else None

    def update(self, hit: bool) -> tuple[str, str] | None:
        """Add one request, answered by this tier or not; return (kind, message) of a new alarm."""
        self.seen += 1
        self.hits += hit
        self._run = 0 if hit else self._run + 1
        had_changed = self._share_changed
        if self._over is not None:
            self._over.update(float(hit))
        if self._under is not None:
            self._under.update(float(not hit))
        if not self._unused and self._is_unlikely_run():
            self._unused = True
            return "tier-unused", (
                f"the {self.tier} answered none of the last {self._run:,} requests, but "
                f"{self.calibrated:.1%} at calibration; a false alarm has a probability of at "
                f"most {self._alpha:g}"
            )
        if self._share_changed and not had_changed:
            return "tier-share", (
                f"the {self.tier} answered {self.hits / self.seen:.1%} of {self.seen:,} requests, "
                f"but {self.calibrated:.1%} at calibration: a difference of more than "
                f"{100 * MAX_SHARE_CHANGE:g} percentage points; a false alarm has a probability of "
                f"at most {self._alpha:g}"
            )
        return None

    @property
    def _share_changed(self) -> bool:
        return any(alarm is not None and alarm.raised for alarm in (self._over, self._under))

    def _is_unlikely_run(self) -> bool:
        if self._smallest_share <= 0 or not self._run:
            return False
        number = self.hits + 1
        allowed = math.log(number * (number + 1) / self._alpha)
        return (
            self._smallest_share >= 1 or -self._run * math.log1p(-self._smallest_share) >= allowed
        )

    def state(self) -> dict[str, Any]:
        """Return the state for `restore`, as a JSON object."""
        return {
            "seen": self.seen,
            "hits": self.hits,
            "run": self._run,
            "unused": self._unused,
            "over": self._over.state() if self._over else None,
            "under": self._under.state() if self._under else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved `state`; raises `InvalidInput` if it is damaged."""
        try:
            counts = [int(state[name]) for name in ("seen", "hits", "run")]
            over, under = (
                None if state[name] is None else Alarm.restore(state[name])
                for name in ("over", "under")
            )
            unused = bool(state["unused"])
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"tier share: the state cannot be read ({type(error).__name__})"
            ) from None
        if (over is None, under is None) != (self._over is None, self._under is None):
            raise InvalidInput("tier share: the state belongs to another certificate")
        self.seen, self.hits, self._run = counts
        self._over, self._under, self._unused = over, under, unused


class TierShares:
    """Tests of the shares of all calibrated tiers."""

    def __init__(self, calibrated: Mapping[Tier, float], n: int, alpha: float) -> None:
        self._tiers = {tier: TierShare(tier, share, n, alpha) for tier, share in calibrated.items()}

    def update(self, tier: Tier) -> list[tuple[str, str]]:
        """Add one request that ``tier`` answered; return (kind, message) of each new alarm."""
        raised = [share.update(share.tier is tier) for share in self._tiers.values()]
        return [alarm for alarm in raised if alarm is not None]

    def report(self) -> dict[str, ShareReport]:
        """Return the calibrated and the present shares."""
        return {
            tier.value: ShareReport(
                calibrated=share.calibrated, now=share.hits / share.seen if share.seen else None
            )
            for tier, share in self._tiers.items()
        }

    def state(self) -> dict[str, Any]:
        """Return the state for `restore`, as a JSON object."""
        return {tier.value: share.state() for tier, share in self._tiers.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved `state`; raises `InvalidInput` if it is damaged."""
        if set(state) != {tier.value for tier in self._tiers}:
            raise InvalidInput("tier shares: the state belongs to another certificate")
        for tier, share in self._tiers.items():
            share.restore(state[tier.value])


class ClientEscalations:
    """Sequential test of each client's share of escalated requests against the usual share.

    The usual share is the ``calibrated`` one. Without calibration it is the share among all
    requests, at least `MIN_REQUESTS`, when the client's test started; a single client is thus
    compared with its own first requests. The j-th test has level α / (j (j + 1)), so that all
    tests together raise a false alarm with probability at most α. Of more than `MAX_CLIENTS`
    clients, the least recently seen are removed.
    """

    def __init__(self, alpha: float, calibrated: float | None = None) -> None:
        self._alpha = alpha
        self._calibrated = calibrated
        self._seen = self._escalated = 0
        self._tests = 0
        self._alarms: OrderedDict[str, Alarm] = OrderedDict()

    def __len__(self) -> int:
        return len(self._alarms)

    def update(self, client: str, escalated: bool) -> str | None:
        """Add one answered request; return the message of a new alarm."""
        alarm = self._alarms.get(client)
        if alarm is None:
            alarm = self._start_test(client)
        self._seen += 1
        self._escalated += escalated
        if alarm is None:
            return None
        self._alarms.move_to_end(client)
        if alarm.raised or not alarm.update(float(escalated)):
            return None
        usual = (alarm.bound - ESCALATION_MARGIN) / ESCALATION_FACTOR
        return (
            f"{client}: {alarm.mean or 0:.1%} of its {alarm.seen:,} requests were escalated, but "
            f"usually {usual:.1%} are: more than {ESCALATION_FACTOR:g} times the usual share plus "
            f"{100 * ESCALATION_MARGIN:g} percentage points; a false alarm has a probability of at "
            f"most {self._alpha:g}"
        )

    def _start_test(self, client: str) -> Alarm | None:
        usual = self._calibrated
        if usual is None and self._seen >= MIN_REQUESTS:
            usual = self._escalated / self._seen
        if usual is None or ESCALATION_FACTOR * usual + ESCALATION_MARGIN >= 1:
            return None
        self._tests += 1
        alpha = self._alpha / (self._tests * (self._tests + 1))
        alarm = self._alarms[client] = Alarm(ESCALATION_FACTOR * usual + ESCALATION_MARGIN, alpha)
        if len(self._alarms) > MAX_CLIENTS:
            self._alarms.popitem(last=False)
        return alarm
