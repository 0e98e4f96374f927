"""Hedged attempts in the state of one request, without any I/O."""

from __future__ import annotations

from typing import Any

import pytest

from mobile_client.dispatch.events import (
    Accept,
    HedgeDue,
    HedgeEnded,
    Started,
    Wait,
)
from mobile_client.dispatch.request_state import (
    Transition,
)
from mobile_client.resilience.replica_stats import RoundTrip
from shared.domain import Reason
from shared.errors import (
    TierFailed,
)
from tests.support.request_state import (
    CLOUD,
    CLOUD_LAMBDA,
    DEADLINE_MS,
    EDGE,
    EDGE_LAMBDA,
    MOBILE,
    Driver,
    answer,
    answered,
    gone,
)


def hedged(**settings: Any) -> Driver:
    driver = Driver(EDGE, hedging=True, **settings)
    driver.stats.replicas[EDGE][0].round_trips.extend([RoundTrip(20.0, True)] * 25)
    return driver


def test_attempt_is_hedged_after_the_p95_of_its_round_trips() -> None:
    driver = hedged()
    first = driver.attempt()
    assert first.hedge_after_ms == 20.0
    second = driver.send(HedgeDue(EDGE), Transition.HEDGE)
    assert (second.tier, second.reason, second.ordinal) == (CLOUD, Reason.HEDGE, 2)
    assert second.hedge_after_ms is None
    assert driver.state.candidates == [MOBILE]


def test_attempt_is_not_hedged_without_enough_round_trips_or_time() -> None:
    assert Driver(EDGE, hedging=True).attempt().hedge_after_ms is None
    action = hedged().send(Started(), Transition.ROUTE, spent_ms=DEADLINE_MS - 20.0)
    assert action.hedge_after_ms is None


@pytest.mark.parametrize(
    "settings",
    [
        {"fail_over": (MOBILE,)},
        {"ceiling": EDGE_LAMBDA + CLOUD_LAMBDA - 0.1},
        {"open_breakers": (CLOUD,)},
        {"mode": "edge-max"},
    ],
    ids=["no other server", "ceiling", "breaker", "mode"],
)
def test_hedge_without_a_second_server_waits(settings: dict[str, Any]) -> None:
    driver = hedged(**settings)
    driver.attempt()
    assert driver.send(HedgeDue(EDGE), Transition.NO_HEDGE) == Wait()


def test_cancelled_hedge_costs_and_is_no_failure() -> None:
    driver = hedged()
    driver.attempt()
    driver.send(HedgeDue(EDGE), Transition.HEDGE)
    assert driver.send(HedgeEnded(EDGE, 2.5), Transition.HEDGE_ENDED) == Wait()
    better = answer()
    assert driver.send(answered(CLOUD, better), Transition.ACCEPT) == Accept(better)
    assert driver.state.spent_lambda == 2.5 + CLOUD_LAMBDA
    assert (driver.state.failed, driver.state.errors) == (set(), [])


def test_hedged_pair_that_failed_falls_over_to_the_mobile() -> None:
    driver = hedged(retries=0)
    driver.attempt()
    driver.send(HedgeDue(EDGE), Transition.HEDGE)
    driver.send(HedgeEnded(EDGE, 0.0, TierFailed("no")), Transition.HEDGE_ENDED)
    assert driver.send(gone(CLOUD), Transition.FAIL_OVER).tier is MOBILE
    assert driver.state.failed == {EDGE, CLOUD}
