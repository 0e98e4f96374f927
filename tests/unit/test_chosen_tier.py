"""Answers that do not come from the tier that the policy chose are counted, and stated first."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner

from mobile_client.resilience.replica_stats import RoundTrip
from mobile_client.service import MobileService
from shared.domain import Tier
from shared.ledger.reports import Summary
from shared.ledger.server.summary import summarise
from shared.ledger.summary_text import print_summary
from shared.wire import Classification
from tests.support.mobile import World, answered
from tests.support.played_tiers import one, plays, seen, world

REQUESTS = 4


async def ask(mobile: MobileService, policy: str) -> list[Classification]:
    return [answered(await one(mobile, policy=policy)) for _ in range(REQUESTS)]


@pytest.mark.parametrize(
    ("edge", "cloud", "policy", "settings", "displaced"),
    [
        ("answers", "answers", "edge", {}, 0),
        ("answers", "answers", "mobile", {}, 0),
        ("gone", "answers", "edge", {}, REQUESTS),
        ("gone", "gone", "edge", {}, REQUESTS),
        ("gone", "answers", "edge", {"fail_over": ("cloud",)}, REQUESTS),
        ("busy", "answers", "cloud", {}, 0),
        # an escalation is the policy's choice; one that no server takes is not
        ("answers", "answers", "dimee-fixed", {}, 0),
        ("gone", "gone", "dimee-fixed", {}, REQUESTS),
    ],
)
def test_count_of_the_ledger_is_that_of_the_answers(
    tmp_path: Path, edge: str, cloud: str, policy: str, settings: dict[str, Any], displaced: int
) -> None:
    found = world(tmp_path, edge, cloud, **settings)
    answers = found.run(lambda mobile: ask(mobile, policy))
    assert sum(not answer.from_chosen_tier for answer in answers) == displaced
    assert counted(found).not_from_chosen_tier == displaced


def test_hedge_and_retry_at_another_replica_are_of_the_chosen_tier(tmp_path: Path) -> None:
    calls = {"edge": 0, "cloud": 0}

    def every_second(tier: str, first: str) -> Any:
        async def handler(request: httpx.Request) -> httpx.Response:
            calls[tier] += request.method == "POST"
            what = first if calls[tier] % 2 else "answers"
            response: httpx.Response = await plays(what, tier)(request)
            return response

        return handler

    played = {
        host: every_second(tier, first)
        for tier, first in (("edge", "hangs"), ("cloud", "fails"))
        for host in (f"{tier}-1", f"{tier}-2")
    }
    urls = {f"{tier}_url": f"http://{tier}-1,http://{tier}-2" for tier in ("edge", "cloud")}
    settings = {"hedge": "p95"} | urls
    found = World(tmp_path, played=played, settings=settings, virtual_time=True)

    async def work(mobile: MobileService) -> list[Classification]:
        for replica in mobile.runtime.tier_stats.replicas[Tier.EDGE]:
            replica.round_trips.extend([RoundTrip(20.0, True)] * 25)
        retried = [answered(await one(mobile, policy="cloud")) for _ in range(2)]
        return [*await ask(mobile, "edge"), *retried]

    answers = found.run(work)
    reasons = [answer.attempts[-1].reason.value for answer in answers]
    assert reasons == ["hedge"] * REQUESTS + ["retry"] * 2
    assert all(answer.from_chosen_tier for answer in answers)
    report = counted(found)
    assert (report.requests, report.not_from_chosen_tier) == (REQUESTS + 2, 0)


def test_retry_after_a_hedge_at_another_tier_is_counted(tmp_path: Path) -> None:
    """The edge fails, then the cloud that was hedged with it, so that another cloud answers."""

    def fails_after(seconds: float, tier: str) -> Any:
        async def handler(request: httpx.Request) -> httpx.Response:
            await asyncio.sleep(seconds)
            response: httpx.Response = await plays("fails", tier)(request)
            return response

        return handler

    played = {
        "edge": fails_after(0.05, "edge"),
        "cloud-1": fails_after(0.1, "cloud"),
        "cloud-2": plays("answers", "cloud"),
    }
    settings = {"hedge": "p95", "cloud_url": "http://cloud-1,http://cloud-2"}
    found = World(tmp_path, played=played, settings=settings, virtual_time=True)

    async def work(mobile: MobileService) -> Classification:
        seen(mobile, Tier.EDGE, 20.0)
        first, second = mobile.runtime.tier_stats.replicas[Tier.CLOUD]
        first.chosen_at, second.chosen_at = -2.0, -1.0
        return answered(await one(mobile, policy="edge", deadline_ms=5_000))

    answer = found.run(work)
    assert [one.reason.value for one in answer.attempts][-2:] == ["hedge", "retry"]
    assert (answer.tier, answer.from_chosen_tier) == (Tier.CLOUD, False)
    assert counted(found).not_from_chosen_tier == 1


def test_hedge_that_wins_is_counted(tmp_path: Path) -> None:
    found = world(tmp_path, "hangs", "answers", hedge="p95")

    async def work(mobile: MobileService) -> list[Classification]:
        seen(mobile, Tier.EDGE, 20.0)
        return await ask(mobile, "edge")

    answers = found.run(work)
    assert [answer.attempts[-1].reason.value for answer in answers] == ["hedge"] * REQUESTS
    assert not any(answer.from_chosen_tier for answer in answers)
    assert counted(found).not_from_chosen_tier == REQUESTS


def test_answer_kept_for_lack_of_escalations_is_counted(tmp_path: Path) -> None:
    budget = {"escalation_budget": 0.0, "escalation_burst": 1}
    found = world(tmp_path, "answers", "answers", **budget)

    async def work(mobile: MobileService) -> list[Classification]:
        policy = mobile.runtime.make_policy("mobile")
        targets = {Tier.MOBILE: Tier.CLOUD}
        policy.escalate = lambda *given: targets.get(given[2].tier)  # type: ignore[method-assign]
        return await ask(mobile, "mobile")

    answers = found.run(work)
    kept = sum(answer.budget_exhausted for answer in answers)
    assert kept == REQUESTS - 1
    assert sum(not answer.from_chosen_tier for answer in answers) == kept
    assert counted(found).not_from_chosen_tier == kept


def test_retry_after_a_fail_over_is_counted(tmp_path: Path) -> None:
    """The final attempt is then a retry, and only an earlier one is a fail-over."""
    calls = {"cloud": 0}

    async def cloud(request: Any) -> Any:
        calls["cloud"] += 1
        return await plays("busy" if calls["cloud"] % 2 else "answers", "cloud")(request)

    played = {"edge": plays("gone", "edge"), "cloud": cloud}
    found = World(tmp_path, played=played, virtual_time=True, settings={"fail_over": ("cloud",)})
    answers = found.run(lambda mobile: ask(mobile, "edge"))
    assert {answer.attempts[-1].reason.value for answer in answers} == {"retry"}
    assert not any(answer.from_chosen_tier for answer in answers)
    assert counted(found).not_from_chosen_tier == REQUESTS


def test_summary_states_them_first(tmp_path: Path) -> None:
    found = world(tmp_path, "gone", "answers")
    found.run(lambda mobile: ask(mobile, "edge"))
    report = counted(found)
    printed = CliRunner().invoke(click.Command("x", callback=lambda: print_summary(report)))
    first = f"answers not from the tier that the policy chose: {REQUESTS} of {REQUESTS} (100.0%)"
    assert printed.output.splitlines()[0] == first
    assert next(iter(report.model_dump())) == "not_from_chosen_tier"


def counted(found: World) -> Summary:
    store = found.ledger()
    try:
        return summarise(store)
    finally:
        store.close()
