"""Escalation budget: bounded for each client, marked in answers, recorded in the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mobile_client.cli.render import row
from mobile_client.insight.explain import explain
from mobile_client.insight.replay import ReplayContext
from mobile_client.insight.request_trace import read_request
from mobile_client.options import RequestOptions
from mobile_client.resilience.escalation_budget import EXHAUSTED
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.domain import Outcome, RoutingDecision, Side, State, Tier
from shared.ledger.server.verify import verify
from shared.policies import TextFeatures
from shared.wire import Classification
from tests.support.mobile import World, answered
from tests.support.paths import BUNDLE

BURST = 3
SHARE = 0.25
TEXT = "a gripping, funny film"


def up_one(
    _features: TextFeatures, _routing: RoutingDecision, outcome: Outcome, _meets_threshold: bool
) -> Tier | None:
    """Escalate every answer below the cloud, as a client with crafted inputs would cause."""
    return {Tier.MOBILE: Tier.EDGE, Tier.EDGE: Tier.CLOUD}.get(outcome.tier)


async def ask(mobile: MobileService, count: int, client: str, policy: str = "mobile") -> list[Any]:
    asked = mobile.runtime.make_policy(policy)
    asked.escalate = up_one  # type: ignore[method-assign]
    return [
        answered((await mobile.classify([TEXT], options=RequestOptions(policy), client=client))[0])
        for _ in range(count)
    ]


def world(folder: Path, **settings: Any) -> World:
    limits = {"escalation_budget": SHARE, "escalation_burst": BURST}
    return World(folder, up=("edge", "cloud"), settings=limits | settings)


def hops(answer: Classification) -> int:
    return len(answer.attempts) - 1


def test_escalations_of_one_client_are_bounded_and_others_are_not_affected(tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> tuple[list[Any], list[Any]]:
        return await ask(mobile, 20, "mallory"), await ask(mobile, 1, "alice")

    mallory, alice = world(tmp_path).run(work)
    assert sum(map(hops, mallory)) <= SHARE * 20 + BURST
    assert hops(mallory[0]) == 2, "a client starts with a burst"
    assert hops(alice[0]) == 2
    assert not alice[0].budget_exhausted
    withheld = [answer for answer in mallory if answer.budget_exhausted]
    assert len(withheld) >= 12
    assert {answer.tier for answer in withheld} <= {Tier.MOBILE, Tier.EDGE}
    assert all(answer.tier is Tier.CLOUD for answer in mallory if not answer.budget_exhausted)
    assert "mobile$" in row(TEXT, withheld[-1])


def test_answers_withheld_from_escalation_are_recorded(tmp_path: Path) -> None:
    tried = world(tmp_path)
    answers = tried.run(lambda mobile: ask(mobile, 12, "mallory"))
    store = tried.ledger()
    report = verify(store)
    assert report.consistent, report
    at_hand = ReplayContext.load(MobileSettings(bundle=BUNDLE))
    for answer in answers:
        rows = store.request_entries(answer.request_id)
        (final,) = [one for one in rows if one.final]
        assert final.state is State.ANSWERED
        assert final.error_code == (EXHAUSTED if answer.budget_exhausted else None)
        others = [one for one in rows if not one.final]
        assert all(one.error_code is None for one in others)
        assert {one.side for one in rows} == {Side.CALLER, Side.TIER}
        verdict = explain(read_request(rows), at_hand).attempts[-1].verdict
        assert verdict.startswith("kept: ") == answer.budget_exhausted
    store.close()


@pytest.mark.parametrize("first", ["mobile", "edge"])
def test_first_tier_answers_without_escalations_left(first: str, tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> list[Any]:
        return await ask(mobile, 2, "mallory", first)

    one, other = world(tmp_path, escalation_budget=0.0, escalation_burst=1).run(work)
    assert hops(one) == 1
    assert (hops(other), other.tier.value, other.budget_exhausted) == (0, first, True)


def test_without_a_budget_escalations_are_unlimited(tmp_path: Path) -> None:
    tried = world(tmp_path, escalation_budget=None, escalation_burst=1)
    answers = tried.run(lambda mobile: ask(mobile, 8, "mallory"))
    assert all(answer.tier is Tier.CLOUD for answer in answers)


@pytest.mark.parametrize(("budget", "seen"), [(0.0, 0), (None, 6)])
def test_answers_withheld_from_escalation_are_not_audited(
    budget: float | None, seen: int, tmp_path: Path
) -> None:
    """Otherwise one client could trigger the alarm that sends all requests to the cloud."""

    async def work(mobile: MobileService) -> tuple[int, list[Any]]:
        answers = await ask(mobile, 6, "mallory")
        audits = mobile.monitor.health().audits
        return audits.seen + audits.waiting, answers

    limits = {"escalation_budget": budget, "escalation_burst": 1, "audit_share": 1.0}
    tried = world(tmp_path, policy="mobile", **limits)
    found, answers = tried.run(work)
    # without a budget all six reach the cloud; else each wants two hops and gets one at most
    assert sum(answer.budget_exhausted for answer in answers) == 6 - seen
    assert found == seen
