"""The escalation budget bounds each client, and its effect is marked and recorded."""

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


def escalate_to_next_tier(
    _features: TextFeatures, _routing: RoutingDecision, outcome: Outcome, _meets_threshold: bool
) -> Tier | None:
    """Escalate every answer below the cloud, as a client with crafted inputs would cause."""
    return {Tier.MOBILE: Tier.EDGE, Tier.EDGE: Tier.CLOUD}.get(outcome.tier)


async def ask(mobile: MobileService, count: int, client: str, policy: str = "mobile") -> list[Any]:
    bandit = mobile.runtime.make_policy(policy)
    bandit.escalate = escalate_to_next_tier  # type: ignore[method-assign]
    return [
        answered((await mobile.classify([TEXT], options=RequestOptions(policy), client=client))[0])
        for _ in range(count)
    ]


def world(folder: Path, **settings: Any) -> World:
    limits = {"escalation_budget": SHARE, "escalation_burst": BURST}
    return World(folder, up=("edge", "cloud"), settings=limits | settings)


def escalations(answer: Classification) -> int:
    return len(answer.attempts) - 1


def test_escalations_of_one_client_are_bounded_and_others_are_not_affected(tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> tuple[list[Any], list[Any]]:
        return await ask(mobile, 20, "mallory"), await ask(mobile, 1, "alice")

    mallory, alice = world(tmp_path).run(work)
    assert sum(map(escalations, mallory)) <= SHARE * 20 + BURST
    assert escalations(mallory[0]) == 2, "a client starts with a burst"
    assert escalations(alice[0]) == 2
    assert not alice[0].budget_exhausted
    withheld = [answer for answer in mallory if answer.budget_exhausted]
    assert len(withheld) >= 12
    assert {answer.tier for answer in withheld} <= {Tier.MOBILE, Tier.EDGE}
    assert all(answer.tier is Tier.CLOUD for answer in mallory if not answer.budget_exhausted)
    assert "mobile$" in row(TEXT, withheld[-1])


def test_answers_kept_for_lack_of_escalations_are_recorded(tmp_path: Path) -> None:
    tried = world(tmp_path)
    answers = tried.run(lambda mobile: ask(mobile, 12, "mallory"))
    store = tried.ledger()
    report = verify(store)
    assert report.consistent, report
    context = ReplayContext.load(MobileSettings(bundle=BUNDLE))
    for answer in answers:
        rows = store.request_entries(answer.request_id)
        (final,) = [row for row in rows if row.final]
        assert final.state is State.ANSWERED
        assert final.error_code == (EXHAUSTED if answer.budget_exhausted else None)
        others = [row for row in rows if not row.final]
        assert all(row.error_code is None for row in others)
        assert {row.side for row in rows} == {Side.CALLER, Side.TIER}
        verdict = explain(read_request(rows), context).attempts[-1].verdict
        assert verdict.startswith("kept: ") == answer.budget_exhausted
    store.close()


@pytest.mark.parametrize("first", ["mobile", "edge"])
def test_first_tier_answers_without_escalations_left(first: str, tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> list[Any]:
        return await ask(mobile, 2, "mallory", first)

    one, other = world(tmp_path, escalation_budget=0.0, escalation_burst=1).run(work)
    assert escalations(one) == 1
    assert (escalations(other), other.tier.value, other.budget_exhausted) == (0, first, True)


def test_without_a_budget_escalations_are_unlimited(tmp_path: Path) -> None:
    tried = world(tmp_path, escalation_budget=None, escalation_burst=1)
    answers = tried.run(lambda mobile: ask(mobile, 8, "mallory"))
    assert all(answer.tier is Tier.CLOUD for answer in answers)


@pytest.mark.parametrize(("budget", "seen"), [(0.0, 0), (None, 6)])
def test_answers_kept_for_lack_of_escalations_are_not_audited(
    budget: float | None, seen: int, tmp_path: Path
) -> None:
    """Otherwise one client could trigger the alarm that sends all requests to the cloud."""

    async def work(mobile: MobileService) -> tuple[int, list[Any]]:
        answers = await ask(mobile, 6, "mallory")
        audits = mobile.monitor.health().audits
        return audits.seen + audits.waiting, answers

    limits = {"escalation_budget": budget, "escalation_burst": 1, "audit_share": 1.0}
    tried = world(tmp_path, policy="mobile", **limits)
    audited, answers = tried.run(work)
    # without a budget all six reach the cloud; with one, each escalates at most once
    assert sum(answer.budget_exhausted for answer in answers) == 6 - seen
    assert audited == seen
