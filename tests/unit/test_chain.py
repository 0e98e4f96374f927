"""One deadline, one ceiling, one mode for the whole chain, whatever the tiers do."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobile_client.dispatch.modes import MODES, allowed
from mobile_client.insight.replay import replayable
from mobile_client.insight.request_trace import read_request
from mobile_client.resilience.circuit_breaker import FAILURES
from mobile_client.service import MobileService
from shared.domain import Reason, State, Tier
from shared.errors import DimeeError, InvalidInput, Overloaded
from shared.ledger.entry import LedgerEntry
from shared.ledger.server.verify import verify
from shared.wire import Classification
from testbed.demo import sample_sentences
from tests.support.mobile import World, answered, story
from tests.support.played_tiers import callers, one, plays, seen, world

COSTS = {"edge": 8.5, "cloud": 18.0}


@pytest.mark.parametrize(
    ("mode", "policy", "expected"),
    [
        ("only-on-device", "cloud", [("mobile", "route", "answered")]),
        ("edge-max", "cloud", [("edge", "route", "answered")]),
        ("prefer-cloud", "mobile", [("cloud", "route", "answered")]),
        ("auto", "edge", [("edge", "route", "answered")]),
    ],
)
def test_modes(mode: str, policy: str, expected: list[Any], tmp_path: Path) -> None:
    found = world(tmp_path, "answers", "answers")
    answer = answered(found.run(lambda mobile: one(mobile, policy=policy, mode=mode)))
    assert story(answer) == expected
    assert not answer.degraded


def test_edge_max_ends_on_the_mobile_and_never_in_the_cloud(tmp_path: Path) -> None:
    found = world(tmp_path, "gone", "answers", retries=0)
    answer = answered(found.run(lambda mobile: one(mobile, policy="cloud", mode="edge-max")))
    assert story(answer) == [("edge", "route", "failed"), ("mobile", "fail_over", "answered")]
    assert answer.degraded_because == "offline"


def test_prefer_cloud_falls_back_to_edge_then_mobile(tmp_path: Path) -> None:
    found = world(tmp_path, "fails", "gone", retries=0)
    answer = answered(found.run(lambda mobile: one(mobile, mode="prefer-cloud")))
    assert [tier for tier, _, _ in story(answer)] == ["cloud", "edge", "mobile"]
    assert answer.degraded_because == "unavailable"


def test_what_a_mode_bars_is_no_failure_and_is_not_replayed(tmp_path: Path) -> None:
    """The bandit's first arm is unsure and wants the cloud: here the edge takes over."""
    texts = sample_sentences()[:30]
    found = world(tmp_path, "answers", "answers")
    asked = {"policy": "i-splitee", "mode": "edge-max"}
    outcomes = found.run(lambda mobile: mobile.classify(texts, **asked))
    unsure = [one for one in map(answered, outcomes) if len(one.attempts) > 1]
    assert unsure
    for answer in unsure:
        assert story(answer) == [("mobile", "route", "answered"), ("edge", "escalate", "answered")]
        assert (answer.escalated, answer.failed_over) == (True, False)
    id_ = unsure[0].request_id
    request = read_request([entry for entry in callers(found) if entry.request_id == id_])
    kept, left_out = replayable([request], unsure[0].bundle_id)
    assert (kept, left_out) == ([], {"restricted by a mode or a cost ceiling": 1})


def test_the_ledger_says_why_the_mobile_answered(tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> list[Classification | DimeeError]:
        return [await one(mobile, policy="cloud") for _ in range(2)]

    found = world(tmp_path, "gone", "fails", retries=0)
    found.run(work)
    last = [entry for entry in callers(found) if entry.final]
    assert [(entry.tier, entry.state, entry.error_code) for entry in last] == [
        (Tier.MOBILE, State.ANSWERED, "unavailable")
    ] * 2
    assert [entry.degraded for entry in last] == [None, None]


def test_an_unknown_mode_is_refused_with_the_choice(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="only-on-device, edge-max"):
        world(tmp_path, "gone", "gone").run(lambda mobile: one(mobile, mode="fast"))


def test_the_ceiling_keeps_dear_tiers_out(tmp_path: Path) -> None:
    found = world(tmp_path, "answers", "answers")
    answer = answered(
        found.run(lambda mobile: one(mobile, policy="cloud", max_cost_lambda=COSTS["cloud"] - 0.1))
    )
    assert answer.capped
    assert answer.tier is not Tier.CLOUD
    assert answer.cost.cost_lambda <= COSTS["cloud"] - 0.1


def test_what_failed_counts_towards_the_ceiling(tmp_path: Path) -> None:
    """A cloud that broke has cost its offload; neither the edge nor the mobile then fits."""
    found = world(tmp_path, "answers", "broken", retries=0)
    answer = found.run(lambda mobile: one(mobile, policy="cloud", max_cost_lambda=18.0))
    assert isinstance(answer, Classification)
    assert answer.cost.cost_lambda <= 18.0
    assert [tier for tier, _, _ in story(answer)] == ["cloud", "edge"]


def test_retries_are_attempts_of_their_own_with_waits_that_grow(tmp_path: Path) -> None:
    waits: list[float] = []

    async def work(mobile: MobileService) -> Classification | DimeeError:
        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        mobile._requester._sleep = sleep
        mobile._requester._dice = random.Random(3)
        return await one(mobile, policy="cloud")

    found = world(tmp_path, "gone", "busy", fail_over=())
    outcome = found.run(work)
    assert isinstance(outcome, Overloaded)
    entries = sorted(callers(found), key=lambda entry: entry.ordinal)
    assert [entry.reason for entry in entries] == [Reason.ROUTE, Reason.RETRY, Reason.RETRY]
    dice = random.Random(3)
    expected = [max(0.01, 0.05 * 2**n * dice.random()) for n in range(2)]
    assert waits == pytest.approx(expected)


@pytest.mark.parametrize("what", ["broken", "hangs", "fails"])
def test_what_may_have_been_done_is_not_done_again(what: str, tmp_path: Path) -> None:
    found = world(tmp_path, "gone", what, fail_over=())
    found.run(lambda mobile: one(mobile, policy="cloud", deadline_ms=200))
    assert [entry.reason for entry in callers(found)] == [Reason.ROUTE]


def test_an_open_breaker_is_no_attempt(tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> list[Classification | DimeeError]:
        outcomes = [await one(mobile, policy="edge") for _ in range(FAILURES + 2)]
        assert mobile.monitor.health().breakers == {"edge": "open", "cloud": "closed"}
        return outcomes

    found = world(tmp_path, "gone", "answers", retries=0)
    outcomes = [answered(outcome) for outcome in found.run(work)]
    assert story(outcomes[0]) == [("edge", "route", "failed"), ("cloud", "fail_over", "answered")]
    assert story(outcomes[-1]) == [("cloud", "fail_over", "answered")]
    assert outcomes[-1].skipped == [Tier.EDGE]
    assert outcomes[-1].failed_over


def test_half_open_one_request_tries_and_the_others_do_not_wait(tmp_path: Path) -> None:
    others = asyncio.Semaphore(0)

    async def edge(request: httpx.Request) -> httpx.Response:
        for _ in range(5):  # the trial is under way until all others have been to the cloud
            await others.acquire()
        return await plays("answers", "edge")(request)

    async def cloud(request: httpx.Request) -> httpx.Response:
        others.release()
        return await plays("answers", "cloud")(request)

    async def work(mobile: MobileService) -> list[Classification]:
        breaker = mobile.runtime.tier_stats.breakers[Tier.EDGE]
        for _ in range(FAILURES):
            breaker.failed()
        breaker._until = breaker.clock()
        outcomes = await asyncio.gather(*(one(mobile, policy="edge") for _ in range(6)))
        assert breaker.state == "closed"
        return [answered(outcome) for outcome in outcomes]

    outcomes = World(tmp_path, played={"edge": edge, "cloud": cloud}).run(work)
    assert [one.tier for one in outcomes].count(Tier.EDGE) == 1
    assert [one.tier for one in outcomes].count(Tier.CLOUD) == 5


BEHAVIOURS = ["answers", "gone", "broken", "hangs", "busy", "fails"]


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    edge=st.sampled_from(BEHAVIOURS),
    cloud=st.sampled_from(BEHAVIOURS),
    mode=st.sampled_from(MODES),
    policy=st.sampled_from(
        ["cascade-routing", "edge", "cloud", "mobile", "dimee-fixed", "i-splitee"]
    ),
    ceiling=st.sampled_from([None, 4.0, 6.0, 9.0, 13.0, 30.0]),
    hedge=st.sampled_from(["off", "p95"]),
)
def test_the_bounds_hold_whatever_the_tiers_do(
    edge: str,
    cloud: str,
    mode: Any,
    policy: str,
    ceiling: float | None,
    hedge: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    deadline_ms = 120.0
    found = world(tmp_path_factory.mktemp("chain"), edge, cloud, hedge=hedge)
    took: list[float] = []

    async def work(mobile: MobileService) -> list[Classification | DimeeError]:
        seen(mobile, Tier.EDGE, 2.0)
        outcomes = []
        for _ in range(3):
            started = time.perf_counter()
            asked = {"policy": policy, "mode": mode, "deadline_ms": deadline_ms}
            outcomes.append(await one(mobile, **asked, max_cost_lambda=ceiling))
            took.append((time.perf_counter() - started) * 1e3)
        return outcomes

    outcomes = found.run(work)
    entries = callers(found)
    assert {entry.tier for entry in entries} <= allowed(mode)
    assert all(entry.is_terminal for entry in entries)
    by_request: dict[str, list[LedgerEntry]] = {}
    for entry in entries:
        by_request.setdefault(entry.request_id, []).append(entry)
    for attempts in by_request.values():
        assert sum(entry.final for entry in attempts) == 1
        assert sorted(entry.ordinal for entry in attempts) == list(range(1, len(attempts) + 1))
        if ceiling is not None:
            assert sum(entry.cost_lambda or 0.0 for entry in attempts) <= ceiling + 1e-9
    for outcome in outcomes:
        if isinstance(outcome, Classification):
            assert outcome.tier in allowed(mode)
        else:  # only where the ceiling pays for nothing, since the mobile can always answer
            assert ceiling is not None
    assert (
        max(took) < deadline_ms + 1_000
    )  # a loaded machine; the deadline is a bound, not a figure
    with_ledger = found.ledger()
    try:
        kinds = {finding.kind for finding in verify(with_ledger).findings}
    finally:
        with_ledger.close()
    # the tiers here are played, and book nothing
    assert kinds <= {"no_tier"}
    assert all(entry.delivery is not None for entry in entries)
