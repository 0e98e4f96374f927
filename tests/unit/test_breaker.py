"""A tier that fails again and again is left alone, tried once, and taken back."""

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


def test_it_opens_after_failures_in_a_row_only(clock: Clock) -> None:
    breaker = CircuitBreaker(clock)
    for _ in range(10):
        for _ in range(FAILURES - 1):
            breaker.record_failure()
        breaker.record_success()
    assert breaker.state == "closed"
    assert opened(clock).state == "open"


def test_open_lets_nobody_pass_until_its_time(clock: Clock) -> None:
    breaker = opened(clock)
    assert not breaker.allows_attempt()
    assert breaker.left_s == pytest.approx(OPEN_S)
    clock.now += OPEN_S - 0.001
    assert not breaker.allows_attempt()
    clock.now += 0.002
    assert breaker.allows_attempt()
    assert breaker.state == "half-open"


def test_half_open_lets_exactly_one_pass(clock: Clock) -> None:
    breaker = opened(clock)
    clock.now += OPEN_S
    breaker.begin_attempt()
    assert not breaker.allows_attempt()
    breaker.record_success()
    assert breaker.allows_attempt()
    assert breaker.state == "closed"


def test_a_failed_trial_doubles_the_rest_up_to_a_limit(clock: Clock) -> None:
    breaker, rests = opened(clock), []
    for _ in range(8):
        rests.append(breaker.left_s)
        clock.now += breaker.left_s
        breaker.record_failure(breaker.begin_attempt())
    assert rests[:3] == pytest.approx([OPEN_S, 2 * OPEN_S, 4 * OPEN_S])
    assert rests[-1] == pytest.approx(MAX_OPEN_S)
    clock.now += MAX_OPEN_S
    breaker.begin_attempt()
    breaker.record_success()
    for _ in range(FAILURES):
        breaker.record_failure()
    assert breaker.left_s == pytest.approx(OPEN_S)  # it begins anew


def test_a_trial_that_is_broken_off_leaves_the_way_to_another(clock: Clock) -> None:
    breaker = opened(clock)
    clock.now += OPEN_S
    token = breaker.begin_attempt()
    breaker.discard(token)
    assert breaker.allows_attempt()


def test_who_began_before_does_not_end_the_trial(clock: Clock) -> None:
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


def test_policies_do_not_reckon_with_who_was_not_there(clock: Clock) -> None:
    breaker = CircuitBreaker(clock)
    breaker.record_failure()
    assert breaker.available
    breaker.record_failure(unreachable=True)
    assert breaker.allows_attempt()
    assert not breaker.available
    clock.now += OPEN_S
    assert breaker.available


def test_late_failures_of_before_do_not_prolong_it(clock: Clock) -> None:
    breaker = opened(clock)
    clock.now += 1
    breaker.record_failure()
    assert breaker.left_s == pytest.approx(OPEN_S - 1)
