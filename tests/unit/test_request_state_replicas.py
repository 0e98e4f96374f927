"""A request at a tier with replicas: another replica is asked before another tier."""

from __future__ import annotations

from typing import Any

import pytest

from mobile_client.dispatch.events import Failed, HedgeDue, HedgeEnded, MakeAttempt
from mobile_client.dispatch.request_state import MAX_REPLICAS, Transition
from mobile_client.resilience.circuit_breaker import FAILURES
from mobile_client.resilience.replica_stats import ReplicaStats, RoundTrip
from shared.domain import Delivery, Reason
from shared.errors import (
    DimeeError,
    InvalidInput,
    NotAdmitted,
    NotReady,
    Overloaded,
    TierFailed,
    TierUnreachable,
)
from tests.support.request_state import (
    CLOUD,
    CLOUD_LAMBDA,
    DEADLINE_MS,
    EDGE,
    EDGE_LAMBDA,
    Driver,
)


def with_replicas(count: int, **settings: Any) -> Driver:
    driver = Driver(EDGE, **settings)
    for _ in range(count - 1):
        driver.stats.add_replica(EDGE)
    return driver


def failed_at(action: MakeAttempt, error: DimeeError | None = None, **event: Any) -> Failed:
    error = error or TierFailed("no")
    given = {"delivery": Delivery.UNKNOWN, "cost_lambda": 0.0} | event
    return Failed(action.tier, error, replica=action.replica, **given)


def open_breaker(replica: ReplicaStats) -> None:
    for _ in range(FAILURES):
        replica.breaker.record_failure(unreachable=True)


@pytest.mark.parametrize(
    "error",
    [TierFailed("500"), TierUnreachable("gone"), NotReady("no"), Overloaded("x"), NotAdmitted("x")],
)
def test_other_replicas_are_asked_before_another_tier(error: DimeeError) -> None:
    driver = with_replicas(3)
    actions = [driver.attempt()]
    for _ in range(2):
        actions.append(driver.send(failed_at(actions[-1], error), Transition.OTHER))
    assert {action.replica for action in actions} == set(driver.stats.replicas[EDGE])
    assert [action.reason for action in actions] == [Reason.ROUTE, Reason.RETRY, Reason.RETRY]
    assert [action.wait_ms for action in actions] == [0.0] * 3
    last = driver.send(failed_at(actions[-1], error), Transition.FAIL_OVER)
    assert (last.tier, last.reason, last.ordinal) == (CLOUD, Reason.FAIL_OVER, 4)


def test_request_tries_a_few_of_many_replicas() -> None:
    driver = with_replicas(10)
    action = driver.attempt()
    for _ in range(MAX_REPLICAS - 1):
        action = driver.send(failed_at(action), Transition.OTHER)
    assert driver.send(failed_at(action), Transition.FAIL_OVER).tier is CLOUD


def test_replica_that_rests_is_not_asked() -> None:
    driver = with_replicas(3)
    resting = driver.stats.replicas[EDGE][1]
    open_breaker(resting)
    first = driver.attempt()
    second = driver.send(failed_at(first), Transition.OTHER)
    assert resting not in (first.replica, second.replica)
    assert driver.send(failed_at(second), Transition.FAIL_OVER).tier is CLOUD


def test_tier_is_skipped_when_all_of_its_replicas_rest() -> None:
    driver = with_replicas(2)
    for replica in driver.stats.replicas[EDGE]:
        open_breaker(replica)
    action = driver.start(Transition.SKIP)
    assert action.tier is CLOUD
    message = driver.state.skipped[EDGE].message
    assert message.startswith("all 2 replicas of the edge have failed")


def test_error_of_the_input_is_not_taken_to_another_replica() -> None:
    driver = with_replicas(2, fail_over=())
    action = driver.attempt()
    driver.send(failed_at(action, InvalidInput("text: no")), Transition.GIVE_UP)


def test_replica_is_not_tried_above_the_ceiling_or_after_the_deadline() -> None:
    driver = with_replicas(2, ceiling=EDGE_LAMBDA + 0.1, fail_over=())
    driver.send(failed_at(driver.attempt(), cost_lambda=EDGE_LAMBDA), Transition.GIVE_UP)
    late = with_replicas(2, fail_over=())
    late.send(failed_at(late.attempt()), Transition.GIVE_UP, DEADLINE_MS)


def test_broken_idle_connection_and_refused_state_stay_at_the_replica() -> None:
    driver = with_replicas(2)
    first = driver.attempt()
    broke = failed_at(first, TierUnreachable("reset"), reused_connection_broke=True)
    again = driver.send(broke, Transition.RECONNECT)
    assert (again.replica, again.fresh_connection) == (first.replica, True)
    other = driver.send(failed_at(again, TierUnreachable("refused")), Transition.OTHER)
    assert other.replica is not first.replica
    broke = failed_at(other, TierUnreachable("reset"), reused_connection_broke=True)
    reconnected = driver.send(broke, Transition.RECONNECT)
    assert reconnected.replica is other.replica
    refused = failed_at(reconnected, InvalidInput("state: no"), resumed=True)
    assert driver.send(refused, Transition.SEND_TEXT).replica is other.replica


def test_replica_that_hangs_leaves_time_to_the_next_one() -> None:
    driver = with_replicas(2, fail_over=())
    first = driver.attempt()
    assert first.time_share == 0.5
    assert driver.send(failed_at(first), Transition.OTHER).time_share == 1.0
    assert Driver(EDGE, fail_over=()).attempt().time_share == 1.0


def test_retry_after_a_wait_may_go_to_any_replica() -> None:
    driver = with_replicas(2, fail_over=())
    busy = Overloaded("full")
    second = driver.send(failed_at(driver.attempt(), busy), Transition.OTHER)
    third = driver.send(failed_at(second, busy), Transition.RETRY)
    assert third.replica in driver.stats.replicas[EDGE]
    assert third.wait_ms > 0


def hedged(**settings: Any) -> Driver:
    driver = with_replicas(2, hedging=True, **settings)
    for replica in driver.stats.replicas[EDGE]:
        replica.round_trips.extend([RoundTrip(20.0, True)] * 25)
    return driver


def test_hedge_goes_to_another_replica() -> None:
    driver = hedged()
    first = driver.attempt()
    second = driver.send(HedgeDue(EDGE), Transition.HEDGE)
    assert (second.tier, second.reason) == (EDGE, Reason.HEDGE)
    assert second.replica not in (None, first.replica)
    # one of the two fails: the tier has not failed while the other is in progress
    driver.send(HedgeEnded(EDGE, 0.0, TierFailed("500")), Transition.HEDGE_ENDED)
    assert driver.state.failed == set()
    assert driver.send(failed_at(second), Transition.FAIL_OVER).tier is CLOUD
    assert driver.state.failed == {EDGE}


def test_other_replicas_of_a_hedged_tier_are_asked_after_the_first_tier() -> None:
    """The edge is slow, and one of two clouds fails while the edge is awaited."""
    driver = with_replicas(1, hedging=True)
    driver.stats.add_replica(CLOUD)
    driver.stats.replicas[EDGE][0].round_trips.extend([RoundTrip(20.0, True)] * 25)
    first = driver.attempt()
    hedge = driver.send(HedgeDue(EDGE), Transition.HEDGE)
    assert hedge.tier is CLOUD
    driver.send(HedgeEnded(CLOUD, 0.0, TierFailed("500")), Transition.HEDGE_ENDED)
    other = driver.send(failed_at(first), Transition.FAIL_OVER)
    assert (other.tier, other.reason) == (CLOUD, Reason.FAIL_OVER)
    assert other.replica not in (None, hedge.replica)


def test_hedge_goes_to_another_tier_if_no_other_replica_can_be_asked() -> None:
    driver = hedged()
    open_breaker(driver.stats.replicas[EDGE][1])
    driver.attempt()
    assert driver.send(HedgeDue(EDGE), Transition.HEDGE).tier is CLOUD
    poor = hedged(ceiling=EDGE_LAMBDA + min(EDGE_LAMBDA, CLOUD_LAMBDA) - 0.1)
    poor.attempt()
    poor.send(HedgeDue(EDGE), Transition.NO_HEDGE)
