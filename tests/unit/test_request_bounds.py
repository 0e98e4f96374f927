"""Deadline, cost ceiling and mode of a request hold over all of its attempts."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobile_client.insight.replay import replayable
from mobile_client.insight.request_trace import read_request
from mobile_client.options import MODES, RequestOptions, allowed_tiers
from mobile_client.resilience.circuit_breaker import FAILURES
from mobile_client.service import MobileService
from shared.domain import Delivery, Reason, State, Tier
from shared.errors import DimeeError, InvalidInput, Overloaded
from shared.ledger.entry import LedgerEntry
from shared.ledger.server.verify import verify
from shared.wire import Classification
from testbed.texts import sample_sentences
from tests.support.mobile import World, answered, attempts_of
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
def test_mode_decides_the_first_tier(
    mode: str, policy: str, expected: list[Any], tmp_path: Path
) -> None:
    found = world(tmp_path, "answers", "answers")
    answer = answered(found.run(lambda mobile: one(mobile, policy=policy, mode=mode)))
    assert attempts_of(answer) == expected
    assert not answer.degraded


def test_edge_max_fails_over_to_the_mobile_and_never_to_the_cloud(tmp_path: Path) -> None:
    found = world(tmp_path, "gone", "answers", retries=0)
    answer = answered(found.run(lambda mobile: one(mobile, policy="cloud", mode="edge-max")))
    assert attempts_of(answer) == [("edge", "route", "failed"), ("mobile", "fail_over", "answered")]
    assert answer.degraded_because == "offline"


def test_prefer_cloud_fails_over_to_the_edge_and_then_the_mobile(tmp_path: Path) -> None:
    found = world(tmp_path, "fails", "gone", retries=0)
    answer = answered(found.run(lambda mobile: one(mobile, mode="prefer-cloud")))
    assert [tier for tier, _, _ in attempts_of(answer)] == ["cloud", "edge", "mobile"]
    assert answer.degraded_because == "unavailable"


def test_tier_that_a_mode_excludes_is_no_failure_and_is_not_replayed(tmp_path: Path) -> None:
    """The bandit's first arm escalates to the cloud; the mode sends it to the edge."""
    texts = sample_sentences()[:30]
    found = world(tmp_path, "answers", "answers")
    asked = {"policy": "i-splitee", "mode": "edge-max"}
    outcomes = found.run(lambda mobile: mobile.classify(texts, options=RequestOptions(**asked)))
    escalated = [one for one in map(answered, outcomes) if len(one.attempts) > 1]
    assert escalated
    for answer in escalated:
        assert attempts_of(answer) == [
            ("mobile", "route", "answered"),
            ("edge", "escalate", "answered"),
        ]
        assert (answer.escalated, answer.failed_over) == (True, False)
    id_ = escalated[0].request_id
    request = read_request([entry for entry in callers(found) if entry.request_id == id_])
    kept, left_out = replayable([request], escalated[0].bundle_id)
    assert (kept, left_out) == ([], {"restricted by a mode or a cost ceiling": 1})


def test_ledger_records_why_the_mobile_answered(tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> list[Classification | DimeeError]:
        return [await one(mobile, policy="cloud") for _ in range(2)]

    found = world(tmp_path, "gone", "fails", retries=0)
    found.run(work)
    last = [entry for entry in callers(found) if entry.final]
    assert [(entry.tier, entry.state, entry.error_code) for entry in last] == [
        (Tier.MOBILE, State.ANSWERED, "unavailable")
    ] * 2
    assert [entry.degraded for entry in last] == [None, None]


def test_unknown_mode_is_refused_with_the_list_of_modes(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="only-on-device, edge-max"):
        world(tmp_path, "gone", "gone").run(lambda mobile: one(mobile, mode="fast"))


def test_cost_ceiling_excludes_expensive_tiers(tmp_path: Path) -> None:
    found = world(tmp_path, "answers", "answers")
    answer = answered(
        found.run(lambda mobile: one(mobile, policy="cloud", max_cost_lambda=COSTS["cloud"] - 0.1))
    )
    assert answer.cost_capped
    assert answer.tier is not Tier.CLOUD
    assert answer.cost.cost_lambda <= COSTS["cloud"] - 0.1


@pytest.mark.parametrize(
    ("first", "ceiling", "tiers", "cost_capped"),
    [
        # after the cloud's offload is paid, the ceiling still pays for the edge
        ("cloud", 18.0, ["cloud", "edge"], False),
        # after the edge's offload is paid, the ceiling no longer pays for the cloud
        ("edge", 20.0, ["edge", "mobile"], True),
    ],
)
def test_failed_attempt_counts_towards_the_ceiling(
    first: str, ceiling: float, tiers: list[str], cost_capped: bool, tmp_path: Path
) -> None:
    behaviours = {"edge": "answers", "cloud": "answers"} | {first: "broken"}
    found = world(tmp_path, **behaviours, retries=0)
    answer = answered(found.run(lambda mobile: one(mobile, policy=first, max_cost_lambda=ceiling)))
    assert answer.cost.cost_lambda <= ceiling
    assert answer.cost_capped == cost_capped
    assert [tier for tier, _, _ in attempts_of(answer)] == tiers


def test_retries_are_separate_attempts_with_growing_waits(tmp_path: Path) -> None:
    waits: list[float] = []

    async def work(mobile: MobileService) -> Classification | DimeeError:
        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        mobile._runner._sleep = sleep
        mobile._runner._random = random.Random(3)
        return await one(mobile, policy="cloud")

    found = world(tmp_path, "gone", "busy", fail_over=())
    outcome = found.run(work)
    assert isinstance(outcome, Overloaded)
    entries = sorted(callers(found), key=lambda entry: entry.ordinal)
    assert [entry.reason for entry in entries] == [Reason.ROUTE, Reason.RETRY, Reason.RETRY]
    dice = random.Random(3)
    expected = [max(0.01, 0.05 * 2**n * dice.random()) for n in range(2)]
    assert waits == pytest.approx(expected)


def test_retry_that_is_cancelled_while_it_waits_was_not_sent(tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> None:
        async def cancel(_: float) -> None:
            request.cancel()
            await asyncio.Event().wait()

        mobile._runner._sleep = cancel
        request = asyncio.create_task(one(mobile, policy="cloud"))
        await asyncio.gather(request, return_exceptions=True)
        assert request.cancelled()

    found = world(tmp_path, "gone", "gone", fail_over=())
    found.run(work)
    first, retry = sorted(callers(found), key=lambda entry: entry.ordinal)
    assert (first.state, first.final) == (State.FAILED, False)
    assert (retry.state, retry.final) == (State.ABANDONED, True)
    assert (retry.delivery, retry.cost_lambda) == (Delivery.NOT_SENT, 0.0)


@pytest.mark.parametrize("what", ["broken", "hangs", "fails"])
def test_attempt_that_may_have_been_executed_is_not_retried(what: str, tmp_path: Path) -> None:
    found = world(tmp_path, "gone", what, fail_over=())
    found.run(lambda mobile: one(mobile, policy="cloud", deadline_ms=200))
    assert [entry.reason for entry in callers(found)] == [Reason.ROUTE]


def test_open_breaker_makes_no_attempt(tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> list[Classification | DimeeError]:
        outcomes = [await one(mobile, policy="edge") for _ in range(FAILURES + 2)]
        assert mobile.monitor.health().breakers == {"edge": "open", "cloud": "closed"}
        return outcomes

    found = world(tmp_path, "gone", "answers", retries=0)
    outcomes = [answered(outcome) for outcome in found.run(work)]
    assert attempts_of(outcomes[0]) == [
        ("edge", "route", "failed"),
        ("cloud", "fail_over", "answered"),
    ]
    assert attempts_of(outcomes[-1]) == [("cloud", "fail_over", "answered")]
    assert outcomes[-1].skipped == [Tier.EDGE]
    assert outcomes[-1].failed_over


def test_half_open_breaker_lets_one_request_through_and_others_do_not_wait(tmp_path: Path) -> None:
    others = asyncio.Semaphore(0)

    async def edge(request: httpx.Request) -> httpx.Response:
        for _ in range(5):  # the trial ends after the cloud has answered all others
            await others.acquire()
        return await plays("answers", "edge")(request)

    async def cloud(request: httpx.Request) -> httpx.Response:
        others.release()
        return await plays("answers", "cloud")(request)

    async def work(mobile: MobileService) -> list[Classification]:
        breaker = mobile.runtime.tier_stats.replicas[Tier.EDGE][0].breaker
        for _ in range(FAILURES):
            breaker.record_failure()
        breaker._open_until = breaker.clock()
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
def test_deadline_ceiling_and_mode_hold_for_every_behaviour_of_the_tiers(
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
    took_ms: list[float] = []

    async def work(mobile: MobileService) -> list[Classification | DimeeError]:
        seen(mobile, Tier.EDGE, 2.0)
        outcomes = []
        for _ in range(3):
            started = asyncio.get_running_loop().time()
            asked = {"policy": policy, "mode": mode, "deadline_ms": deadline_ms}
            outcomes.append(await one(mobile, **asked, max_cost_lambda=ceiling))
            took_ms.append((asyncio.get_running_loop().time() - started) * 1e3)
        return outcomes

    outcomes = found.run(work)
    entries = callers(found)
    assert {entry.tier for entry in entries} <= allowed_tiers(mode)
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
            assert outcome.tier in allowed_tiers(mode)
        else:  # only if the ceiling pays for no attempt, since the mobile can always answer
            assert ceiling is not None
    assert max(took_ms) <= deadline_ms + 1.0  # virtual time: work takes none
    with_ledger = found.ledger()
    try:
        kinds = {finding.kind for finding in verify(with_ledger).findings}
    finally:
        with_ledger.close()
    # played tiers have no ledger rows
    assert kinds <= {"no_tier"}
    assert all(entry.delivery is not None for entry in entries)
