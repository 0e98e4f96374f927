"""Drift alarms of tiers and clients, and their false alarm rates."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobile_client.monitoring.drift import (
    MAX_CLIENTS,
    MIN_REQUESTS,
    ClientEscalations,
    TierShare,
    TierShares,
)
from mobile_client.service import MobileService
from shared.bundle.loading import Bundle
from shared.certificates.sequential_test import binomial_upper
from shared.domain import Tier
from shared.errors import InvalidInput
from tests.support.certificates import written
from tests.support.mobile import World

ALPHA = 0.01
CALIBRATED = {Tier.MOBILE: 0.5, Tier.EDGE: 0.3, Tier.CLOUD: 0.2}


def kinds(shares: TierShares, tiers: list[Tier]) -> list[str]:
    return [kind for tier in tiers for kind, _ in shares.update(tier)]


def test_unused_tier_raises_an_alarm_when_chance_is_unlikely() -> None:
    """The first run raises the alarm at (1 − s)^N <= α / 2; s is the lower bound of the share."""
    watch = TierShare(Tier.EDGE, 0.02, 1000, ALPHA)
    least = 1 - binomial_upper(980, 1000, ALPHA)
    enough = math.ceil(math.log(2 / ALPHA) / -math.log1p(-least))
    alarms = [watch.update(False) for _ in range(enough + 50)]
    found = [number for number, alarm in enumerate(alarms, start=1) if alarm is not None]
    assert found == [enough]  # once
    alarm = alarms[enough - 1]
    assert alarm is not None
    assert alarm[0] == "tier-unused"
    assert f"none of the last {enough:,} requests, but 2.0% at" in alarm[1]


def test_tier_without_calibrated_share_raises_no_alarm() -> None:
    watch = TierShare(Tier.EDGE, 0.0, 1000, ALPHA)
    assert not any(watch.update(False) for _ in range(10_000))


def test_later_runs_must_be_longer_to_raise_an_alarm() -> None:
    """The j-th run has the level α / (j (j + 1)), which sums to α."""
    first, tenth = (TierShare(Tier.EDGE, 0.05, 10_000, ALPHA) for _ in range(2))
    for _ in range(9):
        tenth.update(True)

    def until_alarm(watch: TierShare) -> int:
        return next(n for n in range(1, 10_000) if watch.update(False) is not None)

    assert until_alarm(first) < until_alarm(tenth)


@pytest.mark.parametrize("tier", list(Tier))
def test_changed_share_raises_an_alarm(tier: Tier) -> None:
    rng = np.random.default_rng(1)
    far = {other: 0.35 if other is tier else 0.325 for other in Tier}
    shares = TierShares({tier: 0.6}, 1000, ALPHA)
    seen = [tuple(Tier)[i] for i in rng.choice(3, 2000, p=list(far.values()))]
    assert kinds(shares, seen) == ["tier-share"]


def test_false_alarm_rate_of_tier_shares_is_at_most_alpha() -> None:
    """200 streams of 1,000 requests are checked after each request; α is 5 % for both kinds."""
    alpha = 0.05
    raised = {"tier-unused": 0, "tier-share": 0}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        watch = TierShare(Tier.EDGE, 0.03, 10_000, alpha)
        hits = rng.random(1000) < 0.03
        for kind in {alarm[0] for hit in hits if (alarm := watch.update(bool(hit))) is not None}:
            raised[kind] += 1
    assert max(raised.values()) <= 0.05 * 200, raised


def test_tier_shares_continue_after_a_restart() -> None:
    rng = np.random.default_rng(2)
    tiers = [tuple(Tier)[i] for i in rng.choice(3, 600, p=[0.9, 0.05, 0.05])]
    straight, first = (TierShares(CALIBRATED, 1000, ALPHA) for _ in range(2))
    expected = kinds(straight, tiers)
    before = kinds(first, tiers[:20])
    second = TierShares(CALIBRATED, 1000, ALPHA)
    second.restore(json.loads(json.dumps(first.state())))
    assert before + kinds(second, tiers[20:]) == expected
    assert "tier-share" in expected
    assert second.state() == straight.state()
    assert second.report()["mobile"].calibrated == 0.5


@pytest.mark.parametrize("state", [{}, {"edge": {}}, {"mobile": 1}])
def test_shares_of_another_certificate_are_rejected(state: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        TierShares({Tier.EDGE: 0.5}, 100, ALPHA).restore(state)


def test_client_with_more_escalations_raises_an_alarm() -> None:
    rng = np.random.default_rng(3)
    clients = ClientEscalations(ALPHA, calibrated=0.1)
    alarms = []
    for _ in range(500):
        for name, rate in (("10.0.0.1", 0.1), ("10.0.0.2", 0.6)):
            alarm = clients.update(name, bool(rng.random() < rate))
            alarms += [alarm] if alarm else []
    (alarm,) = alarms
    assert alarm.startswith("10.0.0.2: ")
    assert "usually 10.0% are" in alarm


def test_single_client_is_compared_with_its_first_requests() -> None:
    clients = ClientEscalations(ALPHA)
    calm = [clients.update("mobile", number % 10 == 0) for number in range(MIN_REQUESTS + 200)]
    assert not any(calm)
    assert any(clients.update("mobile", True) for _ in range(200))


def test_equal_clients_raise_no_alarm() -> None:
    """200 clients escalate at the usual share; the level α holds for all tests together."""
    rng = np.random.default_rng(4)
    clients = ClientEscalations(0.05, calibrated=0.2)
    alarms = [
        clients.update(f"client-{number}", bool(rng.random() < 0.2))
        for _ in range(100)
        for number in range(200)
    ]
    assert not any(alarms)


def test_number_of_remembered_clients_is_bounded() -> None:
    clients = ClientEscalations(ALPHA, calibrated=0.1)
    for number in range(MAX_CLIENTS + 50):
        clients.update(f"client-{number}", False)
    assert len(clients) == MAX_CLIENTS


def test_mobile_reports_an_unused_tier_and_continues(bundle: Bundle, tmp_path: Path) -> None:
    """The calibrated share of the cloud is 1, but this mobile never uses it."""
    shares = {"mobile": 0.0, "edge": 0.0, "cloud": 1.0}
    file = written(bundle, tmp_path, shares=shares, escalated=0.1)

    async def work(mobile: MobileService) -> Any:
        for number in range(3):
            await mobile.classify(
                [f"a fine film {number} {i}" for i in range(20)], client="10.0.0.9"
            )
        return mobile.monitor.health()

    settings = {"certificate": file, "audit_share": 0.0}
    world = World(tmp_path, up=("edge",), settings=settings)
    health = world.run(work)
    assert health.shares["cloud"].calibrated == 1.0
    assert health.shares["cloud"].now == 0.0
    assert {alarm.kind for alarm in health.alarms} >= {"tier-unused"}
    assert not health.degraded

    async def again(mobile: MobileService) -> Any:
        return mobile.monitor.health()

    assert world.run(again).alarms == health.alarms
