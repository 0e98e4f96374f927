"""One deadline, one ceiling, one mode for the whole chain, whatever the tiers do."""

from __future__ import annotations

import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobile_client.breaker import FAILURES
from mobile_client.demo import sample_sentences
from mobile_client.modes import MODES, allowed
from mobile_client.phone import Phone
from mobile_client.recorded import read_request
from mobile_client.replay import replayable
from shared.domain import Tier
from shared.errors import DimeeError, InvalidInput, Overloaded
from shared.ledger.entry import LedgerEntry, Reason, Side, State
from shared.ledger.verify import verify
from shared.wire import Classification
from tests.unit.phones import World, answered, story

TEXT = "not the triumph it thinks it is, though hardly a failure"
COSTS = {"edge": 3.5, "cloud": 12.0}


def plays(what: str, tier: str) -> Any:
    """A tier as a handler: what it answers, or how it fails."""

    async def handler(request: httpx.Request) -> httpx.Response:
        if what == "gone":
            raise httpx.ConnectError("refused", request=request)
        if what == "broken":
            raise httpx.ReadError("reset", request=request)
        if what == "hangs":
            await asyncio.sleep(60)
        if what == "busy":
            error = Overloaded("the queue is full", retry_after_s=0.01)
            return httpx.Response(429, json=error.payload())
        if what == "fails":
            return httpx.Response(500, json={"error": {"code": "internal", "message": "x"}})
        layers = 3 if tier == "edge" else 6
        attempt = json.loads(request.content)["attempt_id"]
        return httpx.Response(
            200,
            json={
                "attempt_id": attempt,
                "tier": tier,
                "label": "negative",
                "probabilities": {"negative": 0.99, "positive": 0.01},
                "confidence": 0.99,
                "exit_layer": layers,
                "tokens": 12,
                "truncated": False,
                "bundle_id": "b",
                "queue_ms": 0.1,
                "compute_ms": 1.0,
                "tier_ms": 1.2,
            },
        )

    return handler


def world(tmp_path: Path, edge: str, cloud: str, **facts: Any) -> World:
    played = {"edge": plays(edge, "edge"), "cloud": plays(cloud, "cloud")}
    return World(tmp_path, played=played, settings=facts)


async def one(phone: Phone, **asked: Any) -> Classification | DimeeError:
    return (await phone.classify([TEXT], **asked))[0]


def callers(found: World) -> list[LedgerEntry]:
    return [entry for entry in found.entries() if entry.side is Side.CALLER]


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
    answer = answered(found.run(lambda phone: one(phone, policy=policy, mode=mode)))
    assert story(answer) == expected
    assert not answer.degraded


def test_edge_max_ends_on_the_phone_and_never_in_the_cloud(tmp_path: Path) -> None:
    found = world(tmp_path, "gone", "answers", retries=0)
    answer = answered(found.run(lambda phone: one(phone, policy="cloud", mode="edge-max")))
    assert story(answer) == [("edge", "route", "failed"), ("mobile", "fail_over", "answered")]
    assert answer.degraded_because == "offline"


def test_prefer_cloud_falls_back_to_edge_then_phone(tmp_path: Path) -> None:
    found = world(tmp_path, "fails", "gone", retries=0)
    answer = answered(found.run(lambda phone: one(phone, mode="prefer-cloud")))
    assert [tier for tier, _, _ in story(answer)] == ["cloud", "edge", "mobile"]
    assert answer.degraded_because == "unavailable"


def test_what_a_mode_bars_is_no_failure_and_is_not_replayed(tmp_path: Path) -> None:
    """The bandit's first arm is unsure and wants the cloud: here the edge takes over."""
    texts = sample_sentences()[:30]
    found = world(tmp_path, "answers", "answers")
    asked = {"policy": "i-splitee", "mode": "edge-max"}
    outcomes = found.run(lambda phone: phone.classify(texts, **asked))
    unsure = [one for one in map(answered, outcomes) if len(one.attempts) > 1]
    assert unsure
    for answer in unsure:
        assert story(answer) == [("mobile", "route", "answered"), ("edge", "escalate", "answered")]
        assert (answer.escalated, answer.failed_over) == (True, False)
    id_ = unsure[0].request_id
    request = read_request([entry for entry in callers(found) if entry.request_id == id_])
    kept, left_out = replayable([request], unsure[0].bundle_id)
    assert (kept, left_out) == ([], {"asked for in another mode or under a ceiling": 1})


def test_the_ledger_says_why_the_phone_answered(tmp_path: Path) -> None:
    async def work(phone: Phone) -> list[Classification | DimeeError]:
        return [await one(phone, policy="cloud") for _ in range(2)]

    found = world(tmp_path, "gone", "fails", retries=0)
    found.run(work)
    last = [entry for entry in callers(found) if entry.final]
    assert [(entry.tier, entry.state, entry.error_code) for entry in last] == [
        (Tier.MOBILE, State.ANSWERED, "unavailable")
    ] * 2
    assert [entry.degraded for entry in last] == [None, None]


def test_an_unknown_mode_is_refused_with_the_choice(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="only-on-device, edge-max"):
        world(tmp_path, "gone", "gone").run(lambda phone: one(phone, mode="fast"))


def test_the_ceiling_keeps_dear_tiers_out(tmp_path: Path) -> None:
    found = world(tmp_path, "answers", "answers")
    answer = answered(
        found.run(lambda phone: one(phone, policy="cloud", max_cost_lambda=COSTS["cloud"] - 0.1))
    )
    assert answer.capped
    assert answer.tier is not Tier.CLOUD
    assert answer.cost.cost_lambda <= COSTS["cloud"] - 0.1


def test_what_failed_counts_towards_the_ceiling(tmp_path: Path) -> None:
    """A cloud that broke has cost its offload; the edge then no longer fits, the phone does not."""
    found = world(tmp_path, "answers", "broken", retries=0)
    answer = found.run(lambda phone: one(phone, policy="cloud", max_cost_lambda=12.0))
    assert isinstance(answer, Classification)
    assert answer.cost.cost_lambda <= 12.0
    assert [tier for tier, _, _ in story(answer)] == ["cloud", "edge"]


def test_retries_are_attempts_of_their_own_with_waits_that_grow(tmp_path: Path) -> None:
    waits: list[float] = []

    async def work(phone: Phone) -> Classification | DimeeError:
        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        phone._requester._sleep = sleep
        phone._requester._dice = random.Random(3)
        return await one(phone, policy="cloud")

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
    found.run(lambda phone: one(phone, policy="cloud", deadline_ms=200))
    assert [entry.reason for entry in callers(found)] == [Reason.ROUTE]


def test_an_open_breaker_is_no_attempt(tmp_path: Path) -> None:
    async def work(phone: Phone) -> list[Classification | DimeeError]:
        outcomes = [await one(phone, policy="edge") for _ in range(FAILURES + 2)]
        assert phone.watch.health().breakers == {"edge": "open", "cloud": "closed"}
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

    async def work(phone: Phone) -> list[Classification]:
        breaker = phone.device.observed.breakers[Tier.EDGE]
        for _ in range(FAILURES):
            breaker.failed()
        breaker._until = breaker.clock()
        outcomes = await asyncio.gather(*(one(phone, policy="edge") for _ in range(6)))
        assert breaker.state == "closed"
        return [answered(outcome) for outcome in outcomes]

    outcomes = World(tmp_path, played={"edge": edge, "cloud": cloud}).run(work)
    assert [one.tier for one in outcomes].count(Tier.EDGE) == 1
    assert [one.tier for one in outcomes].count(Tier.CLOUD) == 5


def seen(phone: Phone, tier: Tier, took_ms: float, count: int = 25) -> None:
    phone.device.observed._round_trips[tier].extend([took_ms] * count)


def test_a_hedge_wins_and_both_are_booked(tmp_path: Path) -> None:
    async def work(phone: Phone) -> Classification | DimeeError:
        seen(phone, Tier.EDGE, 5.0)
        return await one(phone, policy="edge")

    found = world(tmp_path, "hangs", "answers", hedge="p95")
    answer = answered(found.run(work))
    assert answer.tier is Tier.CLOUD
    assert sorted(story(answer)) == [
        ("cloud", "hedge", "answered"),
        ("edge", "route", "abandoned"),
    ]
    assert answer.cost.cost_lambda == pytest.approx(12.0 + 0.5)  # the loser's offload is paid
    finals = [entry.final for entry in callers(found) if entry.state is not State.OPEN]
    assert sorted(finals) == [False, True]


def test_no_hedge_before_a_p95_is_known_or_where_the_ceiling_pays_for_one_only(
    tmp_path: Path,
) -> None:
    async def work(phone: Phone) -> list[Classification | DimeeError]:
        few = await one(phone, policy="edge", deadline_ms=150)
        seen(phone, Tier.EDGE, 5.0)
        capped = await one(phone, policy="edge", deadline_ms=150, max_cost_lambda=13.0)
        return [few, capped]

    outcomes = world(tmp_path, "hangs", "answers", hedge="p95").run(work)
    for outcome in outcomes:
        reasons = [reason for _, reason, _ in story(answered(outcome))]
        assert "hedge" not in reasons


def test_a_hedged_pair_keeps_the_deadline_of_the_chain(tmp_path: Path) -> None:
    """The second begins late, and gets what is left then."""
    given_ms: list[float] = []

    async def hang(request: httpx.Request) -> httpx.Response:
        given_ms.append(json.loads(request.content)["deadline_ms"])
        await asyncio.Event().wait()
        raise AssertionError

    async def work(phone: Phone) -> Classification | DimeeError:
        seen(phone, Tier.EDGE, 100.0)
        return await one(phone, policy="edge", deadline_ms=300)

    facts = {"hedge": "p95", "fail_over": ("cloud",)}
    found = World(tmp_path, played={"edge": hang, "cloud": hang}, settings=facts)
    assert isinstance(found.run(work), DimeeError)
    assert given_ms[1] <= 300 - 100


def race(phone: Phone, both_asked: asyncio.Event) -> asyncio.Task[Any]:
    """A request under way whose edge and cloud hang; ``both_asked`` tells when both do."""
    asked: list[str] = []

    async def hang(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        if len(asked) == 2:
            both_asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    phone._tiers[Tier.EDGE]._http._transport = httpx.MockTransport(hang)
    phone._tiers[Tier.CLOUD]._http._transport = httpx.MockTransport(hang)
    seen(phone, Tier.EDGE, 2.0)
    return asyncio.create_task(one(phone, policy="edge"))


def finals(entries: list[LedgerEntry]) -> list[tuple[str, str, bool]]:
    entries = sorted(entries, key=lambda entry: entry.ordinal)
    return [(str(entry.reason), entry.state.value, entry.final) for entry in entries]


BOTH_ABANDONED = [("route", "abandoned", True), ("hedge", "abandoned", False)]


def test_a_phone_that_dies_between_two_leaves_one_last_attempt(tmp_path: Path) -> None:
    async def work(phone: Phone) -> None:
        both_asked = asyncio.Event()
        task = race(phone, both_asked)
        await both_asked.wait()
        phone._outbox.keep = phone._outbox.record = lambda *_: None  # type: ignore[method-assign]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    found = World(tmp_path, settings={"hedge": "p95"})
    found.run(work)
    assert finals(callers(found)) == BOTH_ABANDONED  # ended by who takes its outbox over


def test_a_race_that_is_cancelled_leaves_one_last_attempt(tmp_path: Path) -> None:
    async def work(phone: Phone) -> None:
        both_asked = asyncio.Event()
        task = race(phone, both_asked)
        await both_asked.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    found = World(tmp_path, settings={"hedge": "p95"})
    found.run(work)
    assert finals(callers(found)) == BOTH_ABANDONED


def test_a_winner_that_cannot_be_taken_is_the_last_attempt(tmp_path: Path) -> None:
    async def work(phone: Phone) -> None:
        def broken(*_: Any) -> None:
            raise RuntimeError("inside")

        seen(phone, Tier.EDGE, 2.0)
        phone.device.resumption.learn = broken  # type: ignore[method-assign]
        with pytest.raises(RuntimeError, match="inside"):
            await one(phone, policy="edge")

    found = world(tmp_path, "hangs", "answers", hedge="p95")
    found.run(work)
    assert finals(callers(found)) == [("route", "abandoned", False), ("hedge", "failed", True)]


def test_a_trial_that_is_cancelled_before_it_began_leaves_the_way_open(tmp_path: Path) -> None:
    async def work(phone: Phone) -> None:
        seen(phone, Tier.EDGE, 5.0)
        breaker = phone.device.observed.breakers[Tier.EDGE]
        for _ in range(FAILURES):
            breaker.failed()
        breaker._until = breaker.clock()
        begin, begun = breaker.begin, []

        def cancelled_at_once() -> object:
            task.cancel()
            begun.append(begin())
            assert not breaker.lets_pass()
            return begun[-1]

        breaker.begin = cancelled_at_once  # type: ignore[method-assign]
        task = asyncio.create_task(one(phone, policy="edge"))
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert len(begun) == 1
        assert breaker.lets_pass()

    world(tmp_path, "hangs", "answers", hedge="p95").run(work)


def test_both_of_a_hedged_pair_may_fail(tmp_path: Path) -> None:
    async def slow(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.05)
        raise httpx.ReadError("reset", request=request)

    async def work(phone: Phone) -> Classification | DimeeError:
        seen(phone, Tier.EDGE, 5.0)
        return await one(phone, policy="edge")

    played = {"edge": slow, "cloud": plays("gone", "cloud")}
    found = World(tmp_path, played=played, settings={"hedge": "p95", "retries": 0})
    answer = answered(found.run(work))
    assert answer.tier is Tier.MOBILE
    assert answer.degraded_because == "offline"
    assert {entry.state for entry in callers(found)} == {State.FAILED, State.ANSWERED}


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
    policy=st.sampled_from(["value", "edge", "cloud", "mobile", "dimee-fixed", "i-splitee"]),
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

    async def work(phone: Phone) -> list[Classification | DimeeError]:
        seen(phone, Tier.EDGE, 2.0)
        outcomes = []
        for _ in range(3):
            started = time.perf_counter()
            asked = {"policy": policy, "mode": mode, "deadline_ms": deadline_ms}
            outcomes.append(await one(phone, **asked, max_cost_lambda=ceiling))
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
        else:  # only where the ceiling pays for nothing, since the phone can always answer
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
