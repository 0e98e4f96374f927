"""Circuit breaker: opens after failures, lets one trial through, and closes again."""

from __future__ import annotations

import pytest

from mobile_client.resilience.circuit_breaker import FAILURES, MAX_OPEN_S, OPEN_S, CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(clock)
    for _ in range(FAILURES):
        assert breaker.allows_attempt()
        breaker.begin_attempt()
        breaker.record_failure()
    return breaker


def test_breaker_opens_after_failures_in_a_row_only(clock: Clock) -> None:
    breaker = CircuitBreaker(clock)
    for _ in range(10):
        for _ in range(FAILURES - 1):
            breaker.record_failure()
        breaker.record_success()
    assert breaker.state == "closed"
    assert opened(clock).state == "open"


def test_open_breaker_allows_no_attempt_until_its_time(clock: Clock) -> None:
    breaker = opened(clock)
    assert not breaker.allows_attempt()
    assert breaker.left_s == pytest.approx(OPEN_S)
    clock.now += OPEN_S - 0.001
    assert not breaker.allows_attempt()
    clock.now += 0.002
    assert breaker.allows_attempt()
    assert breaker.state == "half-open"


def test_half_open_breaker_allows_exactly_one_attempt(clock: Clock) -> None:
    breaker = opened(clock)
    clock.now += OPEN_S
    breaker.begin_attempt()
    assert not breaker.allows_attempt()
    breaker.record_success()
    assert breaker.allows_attempt()
    assert breaker.state == "closed"


def test_failed_trial_doubles_the_open_time_up_to_a_limit(clock: Clock) -> None:
    breaker, open_times = opened(clock), []
    for _ in range(8):
        open_times.append(breaker.left_s)
        clock.now += breaker.left_s
        breaker.record_failure(breaker.begin_attempt())
    assert open_times[:3] == pytest.approx([OPEN_S, 2 * OPEN_S, 4 * OPEN_S])
    assert open_times[-1] == pytest.approx(MAX_OPEN_S)
    clock.now += MAX_OPEN_S
    breaker.begin_attempt()
    breaker.record_success()
    for _ in range(FAILURES):
        breaker.record_failure()
    assert breaker.left_s == pytest.approx(OPEN_S)  # back to the first open time


def test_cancelled_trial_allows_another(clock: Clock) -> None:
    breaker = opened(clock)
    clock.now += OPEN_S
    token = breaker.begin_attempt()
    breaker.discard(token)
    assert breaker.allows_attempt()


def test_earlier_attempts_do_not_end_the_trial(clock: Clock) -> None:
    breaker = CircuitBreaker(clock)
    before = [breaker.begin_attempt() for _ in range(3)]
    for _ in range(FAILURES):
        breaker.record_failure(breaker.begin_attempt())
    clock.now += OPEN_S
    trial = breaker.begin_attempt()
    breaker.discard(before[0])
    breaker.record_failure(before[1])
    assert not breaker.allows_attempt()
    breaker.discard(trial)
    assert breaker.allows_attempt()


def test_unreachable_tier_is_not_available_to_policies(clock: Clock) -> None:
    breaker = CircuitBreaker(clock)
    breaker.record_failure()
    assert breaker.available
    breaker.record_failure(unreachable=True)
    assert breaker.allows_attempt()
    assert not breaker.available
    clock.now += OPEN_S
    assert breaker.available


def test_late_failures_of_earlier_attempts_do_not_prolong_the_open_time(clock: Clock) -> None:
    breaker = opened(clock)
    clock.now += 1
    breaker.record_failure()
    assert breaker.left_s == pytest.approx(OPEN_S - 1)


def test_ready_tier_closes_its_breaker_at_once(clock: Clock) -> None:
    breaker = CircuitBreaker(clock)
    for _ in range(FAILURES):
        breaker.record_failure(unreachable=True)
    assert (breaker.state, breaker.readiness) == ("open", "unreachable")
    assert breaker.needs_probe
    breaker.record_ready()
    assert (breaker.state, breaker.readiness) == ("closed", "ready")
    assert breaker.available
    assert not breaker.needs_probe


def test_broken_connection_leaves_what_was_known_and_asks_for_a_probe(clock: Clock) -> None:
    breaker = CircuitBreaker(clock)
    breaker.record_failure(unreachable=True)
    breaker.record_failure()
    assert (breaker.readiness, breaker.last_unreachable) == ("unreachable", True)
    assert breaker.needs_probe
    breaker.record_not_ready(unreachable=False)
    breaker.record_failure()
    assert (breaker.readiness, breaker.last_unreachable) == ("not ready", False)
    assert breaker.needs_probe
    breaker.record_ready()
    breaker.record_failure()
    assert (breaker.readiness, breaker.last_unreachable) == ("ready", False)
    assert not breaker.needs_probe


def test_ready_tier_is_available_again_after_a_single_failure(clock: Clock) -> None:
    breaker = CircuitBreaker(clock)
    breaker.record_failure(unreachable=True)
    assert not breaker.available
    breaker.record_ready()
    assert breaker.available
    assert breaker.failures == 0


def test_tier_that_is_ready_but_fails_gets_its_requests_back_only_once(clock: Clock) -> None:
    breaker = opened(clock)
    breaker.record_ready()
    assert breaker.state == "closed"
    for _ in range(FAILURES):
        breaker.record_failure()
    assert not breaker.needs_probe
    breaker.record_ready()
    assert (breaker.state, breaker.readiness) == ("open", "failing")
    clock.now += OPEN_S
    breaker.record_failure(breaker.begin_attempt(), unreachable=True)  # now it is down as well
    assert breaker.needs_probe
    breaker.record_ready()
    assert breaker.state == "closed"


def test_ready_tier_does_not_forget_its_other_failures(clock: Clock) -> None:
    """Probes between the failures must not keep the breaker of a failing tier closed."""
    breaker = CircuitBreaker(clock)
    for _ in range(2 * FAILURES):
        breaker.record_failure()
        breaker.record_ready()
    assert breaker.state == "open"


def test_failure_of_an_attempt_from_before_the_closing_does_not_count(clock: Clock) -> None:
    breaker = CircuitBreaker(clock)
    earlier = [breaker.begin_attempt() for _ in range(FAILURES)]
    for _ in range(FAILURES):
        breaker.record_failure(breaker.begin_attempt(), unreachable=True)
    breaker.record_ready()
    for token in earlier:
        breaker.record_failure(token)
    assert breaker.state == "closed"
    assert breaker.failures == 0
