"""Probes of tiers that rest: requests go back at once, and a working tier is not asked."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from mobile_client.resilience.circuit_breaker import FAILURES, OPEN_S, SUSPECT_AFTER_S
from mobile_client.resilience.readiness_prober import FRESH_S, IDLE_S, MAX_INTERVAL_S
from mobile_client.resilience.replica_stats import FAIR_TIMEOUT_MS
from mobile_client.service import MobileService
from shared.domain import Tier
from shared.errors import NotReady
from shared.tier_client import TierClient
from tests.support.answers import EDGE_RULES, readiness
from tests.support.mobile import World, answered, attempts_of
from tests.support.played_tiers import one, plays, seen

INTERVAL_S = 0.5


class Played:
    """A tier whose behaviour a test changes, and the number of its probes."""

    def __init__(self, tier: str, what: str = "answers", delay_s: float = 0.0) -> None:
        self.tier, self.what, self.delay_s = tier, what, delay_s
        self.probes = self.requests = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        probe = request.url.path == "/readyz"
        self.probes += probe
        self.requests += request.method == "POST"
        await asyncio.sleep(self.delay_s)
        if self.what == "starting":
            error = {"error": {"code": "not_ready", "message": "not yet"}}
            return httpx.Response(503, json=error)
        if self.what == "silent" and probe:
            await asyncio.sleep(60.0)
        if self.what == "stuck":  # ready, but answers no request
            return await plays("answers" if probe else "fails", self.tier)(request)
        what = "answers" if self.what == "silent" else self.what
        response: httpx.Response = await plays(what, self.tier)(request)
        return response


def world(folder: Path, edge: Played, cloud: Played, **settings: Any) -> World:
    played = {"edge": edge, "cloud": cloud}
    given = {"probe_interval_s": INTERVAL_S} | settings
    return World(folder, played=played, settings=given, virtual_time=True)


@pytest.mark.parametrize("what", ["gone", "starting"])
def test_requests_go_to_a_tier_as_soon_as_it_is_ready(tmp_path: Path, what: str) -> None:
    cloud = Played("cloud", what)

    async def work(mobile: MobileService) -> list[Tier]:
        tiers = [answered(await one(mobile, policy="cloud")).tier for _ in range(2 * FAILURES)]
        assert mobile.runtime.tier_stats.replicas[Tier.CLOUD][0].breaker.state == "open"
        cloud.what = "answers"
        await asyncio.sleep(INTERVAL_S)
        return [*tiers, *[answered(await one(mobile, policy="cloud")).tier for _ in range(50)]]

    tiers = world(tmp_path, Played("edge"), cloud).run(work)
    assert tiers == [Tier.EDGE] * 2 * FAILURES + [Tier.CLOUD] * 50


def test_single_unreachable_attempt_keeps_nothing_away(tmp_path: Path) -> None:
    """Policies plan without a tier that was unreachable; that must not last five seconds."""
    edge = Played("edge", "gone")

    async def work(mobile: MobileService) -> bool:
        await one(mobile, policy="edge")
        breaker = mobile.runtime.tier_stats.replicas[Tier.EDGE][0].breaker
        assert not breaker.available
        edge.what = "answers"
        await asyncio.sleep(INTERVAL_S)
        return breaker.available

    assert world(tmp_path, edge, Played("cloud")).run(work)


def test_working_tiers_are_not_probed(tmp_path: Path) -> None:
    edge, cloud = Played("edge"), Played("cloud")

    async def work(mobile: MobileService) -> None:
        for policy in ("edge", "cloud", "mobile") * 5:
            answered(await one(mobile, policy=policy))
            await asyncio.sleep(IDLE_S)
        assert not mobile.prober.running

    world(tmp_path, edge, cloud).run(work)
    assert (edge.probes, cloud.probes) == (0, 0)


def test_probes_keep_their_interval_and_stop_without_requests(tmp_path: Path) -> None:
    edge = Played("edge", "gone")

    async def work(mobile: MobileService) -> None:
        for _ in range(100):
            await one(mobile, policy="edge")
        await asyncio.sleep(10 * INTERVAL_S)
        assert 9 <= edge.probes <= 11
        await asyncio.sleep(IDLE_S)
        assert not mobile.prober.running
        edge.probes = 0
        await asyncio.sleep(10 * IDLE_S)
        assert edge.probes == 0
        await one(mobile, policy="edge")
        assert mobile.prober.running == {Tier.EDGE}

    world(tmp_path, edge, Played("cloud")).run(work)


def test_probes_of_a_tier_that_is_down_for_long_become_rare(tmp_path: Path) -> None:
    """And a tier that works and fails anew is asked soon again, as is one whose state is asked."""
    edge = Played("edge", "gone")

    async def minutes(mobile: MobileService, number: int) -> list[int]:
        """Send a request each 5 s, and return the number of probes in each minute."""
        counts = []
        for _ in range(number):
            before = edge.probes
            for _ in range(12):
                outcome = answered(await one(mobile, policy="edge"))
                assert outcome.tier is Tier.CLOUD
                await asyncio.sleep(5.0)
            counts.append(edge.probes - before)
        return counts

    async def work(mobile: MobileService) -> None:
        first, *_, last = await minutes(mobile, 10)
        assert 15 <= first <= 60
        assert 1 <= last <= 60 / (0.4 * MAX_INTERVAL_S)
        requests = edge.requests
        probes = edge.probes
        for _ in range(round(2 * MAX_INTERVAL_S / INTERVAL_S)):
            await asyncio.sleep(INTERVAL_S)
            if edge.probes > probes:
                break
        probes += 1
        await asyncio.sleep(FRESH_S)  # the next probe comes later than that, unless it is asked for
        assert edge.probes == probes
        mobile.prober.renew()
        await asyncio.sleep(2 * INTERVAL_S)
        assert edge.probes == probes + 1
        edge.what = "answers"
        for _ in range(120):
            await asyncio.sleep(1.0)
            if answered(await one(mobile, policy="edge")).tier is Tier.EDGE:
                break
        assert edge.requests == requests + 1  # no request tried it while it was down
        edge.what = "gone"
        for _ in range(FAILURES):
            await one(mobile, policy="edge")
        probes = edge.probes
        await asyncio.sleep(4 * INTERVAL_S)
        assert edge.probes - probes >= 3

    world(tmp_path, edge, Played("cloud")).run(work)


def test_closing_ends_the_probes(tmp_path: Path) -> None:
    edge = Played("edge", "hangs")

    async def work(mobile: MobileService) -> None:
        mobile.prober.renew()
        await asyncio.sleep(0.1)
        assert mobile.prober.running
        await mobile.prober.close()
        assert not mobile.prober.running
        mobile.prober.renew()
        assert not mobile.prober.running

    world(tmp_path, edge, Played("cloud")).run(work)


def test_caller_with_a_short_deadline_does_not_exclude_a_tier_for_others(tmp_path: Path) -> None:
    """300 ms on a link of 340 ms: the caller gets no answer of the edge, and all others do."""
    edge = Played("edge", delay_s=0.34)

    async def work(mobile: MobileService) -> None:
        for _ in range(10):
            hasty = answered(await one(mobile, policy="edge", deadline_ms=300))
            assert attempts_of(hasty)[0] == ("edge", "route", "timed_out")
            patient = answered(await one(mobile, policy="edge", deadline_ms=5_000))
            assert attempts_of(patient) == [("edge", "route", "answered")]
        await asyncio.gather(*(one(mobile, policy="edge", deadline_ms=300) for _ in range(50)))
        await asyncio.sleep(FAIR_TIMEOUT_MS / 1e3)
        breaker = mobile.runtime.tier_stats.replicas[Tier.EDGE][0].breaker
        assert (breaker.state, breaker.failures, breaker.readiness) == ("closed", 0, "ready")
        assert mobile.runtime.tier_stats.conditions.delay_ms[Tier.EDGE] == pytest.approx(
            340, abs=0.1
        )
        probes = edge.probes
        await asyncio.sleep(IDLE_S / 2)
        assert edge.probes == probes

    world(tmp_path, edge, Played("cloud")).run(work)


def test_hanging_tier_is_found_by_probes_if_all_deadlines_are_short(tmp_path: Path) -> None:
    edge = Played("edge", "hangs")

    async def work(mobile: MobileService) -> None:
        breaker = mobile.runtime.tier_stats.replicas[Tier.EDGE][0].breaker
        for _ in range(2 * FAILURES):
            await one(mobile, policy="edge", deadline_ms=300)
        assert breaker.failures == 0
        await asyncio.sleep(FAILURES * (FAIR_TIMEOUT_MS / 1e3 + INTERVAL_S))
        assert breaker.state == "open"
        assert edge.probes in (FAILURES, FAILURES + 1)  # the last may have just begun
        outcome = answered(await one(mobile, policy="edge", deadline_ms=300))
        assert attempts_of(outcome) == [("cloud", "fail_over", "answered")]

    world(tmp_path, edge, Played("cloud")).run(work)


def test_tier_that_is_ready_but_fails_requests_does_not_get_them_again_and_again(
    tmp_path: Path,
) -> None:
    edge = Played("edge", "stuck")

    async def work(mobile: MobileService) -> list[str]:
        first_tiers = []
        for _ in range(100):
            outcome = answered(await one(mobile, policy="edge"))
            first_tiers.append(attempts_of(outcome)[0][0])
            await asyncio.sleep(0.04)
        return first_tiers

    first_tiers = world(tmp_path, edge, Played("cloud")).run(work)
    assert first_tiers.count("edge") == 2 * FAILURES
    assert edge.probes == 1


def test_renewal_asks_only_for_old_knowledge_and_allowed_tiers(tmp_path: Path) -> None:
    edge, cloud = Played("edge"), Played("cloud", "gone")

    async def work(mobile: MobileService) -> None:
        readiness = [
            one.breaker.readiness for (one,) in mobile.runtime.tier_stats.replicas.values()
        ]
        assert readiness == ["unknown", "unknown"]
        for _ in range(20):
            mobile.prober.renew(frozenset({Tier.MOBILE, Tier.EDGE}))
            await asyncio.sleep(FRESH_S / 20)
        assert (edge.probes, cloud.probes) == (1, 0)
        for _ in range(20):
            mobile.prober.renew()
            await asyncio.sleep(FRESH_S / 20)
        readiness = [
            one.breaker.readiness for (one,) in mobile.runtime.tier_stats.replicas.values()
        ]
        assert readiness == ["ready", "unreachable"]
        assert edge.probes == 2

    world(tmp_path, edge, cloud).run(work)


def test_no_request_tries_a_tier_while_its_probes_fail(tmp_path: Path) -> None:
    """Otherwise every few seconds a request would wait for a tier that is known to be away."""
    edge = Played("edge", "hangs")

    async def work(mobile: MobileService) -> list[str]:
        first_tiers = []
        for _ in range(90):
            outcome = answered(await one(mobile, policy="edge"))
            first_tiers.append(attempts_of(outcome)[0][0])
            await asyncio.sleep(1.0)
        return first_tiers

    first_tiers = world(tmp_path, edge, Played("cloud")).run(work)
    # after three timeouts of requests the breaker is open, and the time until then is not repeated
    assert first_tiers == ["edge"] * FAILURES + ["cloud"] * (90 - FAILURES)


def test_tier_of_which_only_readyz_hangs_gets_its_requests_back(tmp_path: Path) -> None:
    edge = Played("edge", "fails")

    async def work(mobile: MobileService) -> list[str]:
        while mobile.runtime.tier_stats.replicas[Tier.EDGE][0].breaker.state == "closed":
            await one(mobile, policy="edge")
        edge.what = "silent"
        first_tiers = []
        for _ in range(60):
            outcome = answered(await one(mobile, policy="edge"))
            first_tiers.append(attempts_of(outcome)[0][0])
            await asyncio.sleep(1.0)
        return first_tiers

    first_tiers = world(tmp_path, edge, Played("cloud")).run(work)
    back = first_tiers.index("edge")
    assert back <= 2 * OPEN_S
    assert first_tiers[back:] == ["edge"] * (60 - back)


def test_impatient_callers_cause_few_probes_of_a_working_tier(tmp_path: Path) -> None:
    edge = Played("edge", delay_s=0.34)

    async def work(mobile: MobileService) -> int:
        for _ in range(100):
            await one(mobile, policy="edge", deadline_ms=300)
        return edge.probes

    # 15 s of requests; those of others would make it none
    assert world(tmp_path, edge, Played("cloud")).run(work) <= 15 / SUSPECT_AFTER_S + 1


def test_tier_that_hangs_behind_hedges_is_found_by_probes(tmp_path: Path) -> None:
    """Each hedge wins, so that no attempt at the tier ends in a failure, and all are paid for."""
    edge = Played("edge", "hangs")

    async def work(mobile: MobileService) -> Counter[int]:
        seen(mobile, Tier.EDGE, 20.0)
        attempts = Counter[int]()
        for _ in range(200):
            outcome = answered(await one(mobile, policy="edge"))
            assert outcome.tier is Tier.CLOUD
            attempts[len(outcome.attempts)] += 1
            await asyncio.sleep(0.1)
        return attempts

    attempts = world(tmp_path, edge, Played("cloud"), hedge="p95").run(work)
    assert attempts[1] > attempts[2]
    assert edge.probes >= FAILURES


@pytest.mark.parametrize(
    ("status", "body", "ready"),
    [
        (200, json.dumps(readiness("edge") | {"layers": 3}), True),
        (200, json.dumps(readiness("cloud")), False),
        (200, json.dumps(readiness("edge") | {"bundle_id": "other"}), False),
        (200, json.dumps(readiness("edge") | {"status": 5}), False),
        (200, "<html>sign in to this network</html>", False),
        (200, "[" * 100_000, False),
        (200, "[]", False),
        (204, "", False),
        (302, json.dumps(readiness("edge")), False),
        (401, "", False),
        (404, "", False),
        (503, json.dumps(readiness("edge")), False),
    ],
)
def test_only_a_tiers_own_readiness_says_that_it_is_ready(
    status: int, body: str, ready: bool
) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(status, text=body))
    client = TierClient(Tier.EDGE, "http://edge", EDGE_RULES, transport)
    error = asyncio.run(client.probe(20.0))
    assert isinstance(error, NotReady) is not ready
    assert ready is (error is None)
