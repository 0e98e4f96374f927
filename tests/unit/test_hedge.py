"""A hedged pair returns the first answer and records both attempts, exactly one as final."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from mobile_client.resilience.circuit_breaker import FAILURES
from mobile_client.resilience.replica_stats import RoundTrip
from mobile_client.service import MobileService
from shared.domain import State, Tier
from shared.errors import DimeeError
from shared.ledger.entry import LedgerEntry
from shared.pricing.cost_model import CostModel
from shared.wire import Classification
from tests.support.mobile import World, answered, attempts_of
from tests.support.played_tiers import callers, one, plays, seen, world

COSTS = CostModel.paper(6)


def test_hedge_that_answers_first_wins_and_both_are_recorded(tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> Classification | DimeeError:
        seen(mobile, Tier.EDGE, 5.0)
        return await one(mobile, policy="edge")

    entries = world(tmp_path, "hangs", "answers", hedge="p95")
    answer = answered(entries.run(work))
    assert answer.tier is Tier.CLOUD
    assert sorted(attempts_of(answer)) == [
        ("cloud", "hedge", "answered"),
        ("edge", "route", "abandoned"),
    ]
    assert answer.cost.cost_lambda == pytest.approx(
        COSTS.all_cloud + COSTS.offload_edge
    )  # the loser's offload is paid as well
    finals = [entry.final for entry in callers(entries) if entry.state is not State.OPEN]
    assert sorted(finals) == [False, True]


def test_no_hedge_without_a_p95_or_beyond_the_ceiling(
    tmp_path: Path,
) -> None:
    async def work(mobile: MobileService) -> list[Classification | DimeeError]:
        few = await one(mobile, policy="edge", deadline_ms=150)
        seen(mobile, Tier.EDGE, 5.0)
        limited = await one(mobile, policy="edge", deadline_ms=150, max_cost_lambda=13.0)
        return [few, limited]

    outcomes = world(tmp_path, "hangs", "answers", hedge="p95").run(work)
    for outcome in outcomes:
        reasons = [reason for _, reason, _ in attempts_of(answered(outcome))]
        assert "hedge" not in reasons


def test_hedge_gets_only_the_remaining_time_of_the_request(tmp_path: Path) -> None:
    """The hedge starts after 100 of the request's 300 ms."""
    given_ms: list[float] = []

    async def hang(request: httpx.Request) -> httpx.Response:
        given_ms.append(json.loads(request.content)["deadline_ms"])
        await asyncio.Event().wait()
        raise AssertionError

    async def work(mobile: MobileService) -> Classification | DimeeError:
        seen(mobile, Tier.EDGE, 100.0)
        return await one(mobile, policy="edge", deadline_ms=300)

    facts = {"hedge": "p95", "fail_over": ("cloud",)}
    played = {"edge": hang, "cloud": hang}
    found = World(tmp_path, played=played, settings=facts, virtual_time=True)
    assert isinstance(found.run(work), DimeeError)
    assert given_ms[1] <= 300 - 100


def hedged_request(mobile: MobileService, both_asked: asyncio.Event) -> asyncio.Task[Any]:
    """Start a request whose edge and cloud hang; ``both_asked`` is set once both were asked."""
    asked: list[str] = []

    async def hang(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        if len(asked) == 2:
            both_asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    mobile.replicas.next_client(Tier.EDGE)._transport = httpx.MockTransport(hang)
    mobile.replicas.next_client(Tier.CLOUD)._transport = httpx.MockTransport(hang)
    seen(mobile, Tier.EDGE, 2.0)
    return asyncio.create_task(one(mobile, policy="edge"))


def attempts_by_ordinal(entries: list[LedgerEntry]) -> list[tuple[str, str, bool]]:
    entries = sorted(entries, key=lambda entry: entry.ordinal)
    return [(str(entry.reason), entry.state.value, entry.final) for entry in entries]


BOTH_ABANDONED = [("route", "abandoned", True), ("hedge", "abandoned", False)]


def test_mobile_that_dies_during_a_hedge_leaves_one_final_attempt(tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> None:
        both_asked = asyncio.Event()
        task = hedged_request(mobile, both_asked)
        await both_asked.wait()
        mobile.outbox.record = lambda *_: None  # type: ignore[method-assign]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    found = World(tmp_path, settings={"hedge": "p95"})
    found.run(work)
    assert (
        attempts_by_ordinal(callers(found)) == BOTH_ABANDONED
    )  # closed by the next owner of its outbox


def test_cancelled_hedged_pair_leaves_one_final_attempt(tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> None:
        both_asked = asyncio.Event()
        task = hedged_request(mobile, both_asked)
        await both_asked.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    found = World(tmp_path, settings={"hedge": "p95"})
    found.run(work)
    assert attempts_by_ordinal(callers(found)) == BOTH_ABANDONED


def test_winner_whose_processing_fails_is_the_final_attempt(tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> None:
        def broken(*_: Any) -> None:
            raise RuntimeError("inside")

        seen(mobile, Tier.EDGE, 2.0)
        mobile.runtime.resumption.needs_hidden_states = True
        mobile.runtime.resumption.learn = broken  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="inside"):
            await one(mobile, policy="edge")

    found = world(tmp_path, "hangs", "answers", hedge="p95")
    found.run(work)
    assert attempts_by_ordinal(callers(found)) == [
        ("route", "abandoned", False),
        ("hedge", "failed", True),
    ]


def test_trial_that_is_cancelled_before_it_ran_releases_the_breaker(tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> None:
        seen(mobile, Tier.EDGE, 5.0)
        breaker = mobile.runtime.tier_stats.replicas[Tier.EDGE][0].breaker
        for _ in range(FAILURES):
            breaker.record_failure()
        breaker._open_until = breaker.clock()
        begin, begun = breaker.begin_attempt, []

        def cancelled_at_once() -> object:
            task.cancel()
            begun.append(begin())
            assert not breaker.allows_attempt()
            return begun[-1]

        breaker.begin_attempt = cancelled_at_once  # type: ignore[method-assign]
        task = asyncio.create_task(one(mobile, policy="edge"))
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert len(begun) == 1
        assert breaker.allows_attempt()

    world(tmp_path, "hangs", "answers", hedge="p95").run(work)


def test_hedged_pair_that_fails_is_failed_over(tmp_path: Path) -> None:
    async def slow(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.05)
        raise httpx.ReadError("reset", request=request)

    async def work(mobile: MobileService) -> Classification | DimeeError:
        seen(mobile, Tier.EDGE, 5.0)
        return await one(mobile, policy="edge")

    played = {"edge": slow, "cloud": plays("gone", "cloud")}
    settings = {"hedge": "p95", "retries": 0}
    found = World(tmp_path, played=played, settings=settings, virtual_time=True)
    answer = answered(found.run(work))
    assert answer.tier is Tier.MOBILE
    assert answer.degraded_because == "offline"
    assert {entry.state for entry in callers(found)} == {State.FAILED, State.ANSWERED}


@pytest.mark.parametrize("replicas", [1, 2])
def test_hedge_that_loses_is_recorded_and_its_server_is_suspected(
    tmp_path: Path, replicas: int
) -> None:
    """The first server answers late, and the second one, which hangs, has not yet."""

    async def late(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.05)
        answer: httpx.Response = await plays("answers", "edge")(request)
        return answer

    async def work(mobile: MobileService) -> Classification | DimeeError:
        for replica in mobile.runtime.tier_stats.replicas[Tier.EDGE]:
            replica.round_trips.extend([RoundTrip(5.0, True)] * 25)
        mobile.runtime.tier_stats.replicas[Tier.EDGE][0].chosen_at = -1.0
        outcome = await one(mobile, policy="edge")
        loser = Tier.CLOUD if replicas == 1 else Tier.EDGE
        assert mobile.runtime.tier_stats.replicas[loser][-1].breaker.suspected
        return outcome

    played = {"edge": late, "edge-2": plays("hangs", "edge"), "cloud": plays("hangs", "cloud")}
    settings = {"hedge": "p95", "edge_url": ",".join(["http://edge", "http://edge-2"][:replicas])}
    found = World(tmp_path, played=played, settings=settings, virtual_time=True)
    answer = answered(found.run(work))
    assert answer.tier is Tier.EDGE
    assert sorted(attempts_of(answer)) == [
        ("cloud" if replicas == 1 else "edge", "hedge", "abandoned"),
        ("edge", "route", "answered"),
    ]
