"""A tier that fails again and again is left alone, tried once, and taken back."""

from __future__ import annotations

import pytest

from mobile_client.resilience.circuit_breaker import FAILURES, MOST_REST_S, REST_S, CircuitBreaker


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
        assert breaker.lets_pass()
        breaker.begin()
        breaker.failed()
    return breaker


def test_it_opens_after_failures_in_a_row_only(clock: Clock) -> None:
    breaker = CircuitBreaker(clock)
    for _ in range(10):
        for _ in range(FAILURES - 1):
            breaker.failed()
        breaker.succeeded()
    assert breaker.state == "closed"
    assert opened(clock).state == "open"


def test_open_lets_nobody_pass_until_its_time(clock: Clock) -> None:
    breaker = opened(clock)
    assert not breaker.lets_pass()
    assert breaker.left_s == pytest.approx(REST_S)
    clock.now += REST_S - 0.001
    assert not breaker.lets_pass()
    clock.now += 0.002
    assert breaker.lets_pass()
    assert breaker.state == "half-open"


def test_half_open_lets_exactly_one_pass(clock: Clock) -> None:
    breaker = opened(clock)
    clock.now += REST_S
    breaker.begin()
    assert not breaker.lets_pass()
    breaker.succeeded()
    assert breaker.lets_pass()
    assert breaker.state == "closed"


def test_a_failed_trial_doubles_the_rest_up_to_a_limit(clock: Clock) -> None:
    breaker, rests = opened(clock), []
    for _ in range(8):
        rests.append(breaker.left_s)
        clock.now += breaker.left_s
        breaker.failed(breaker.begin())
    assert rests[:3] == pytest.approx([REST_S, 2 * REST_S, 4 * REST_S])
    assert rests[-1] == pytest.approx(MOST_REST_S)
    clock.now += MOST_REST_S
    breaker.begin()
    breaker.succeeded()
    for _ in range(FAILURES):
        breaker.failed()
    assert breaker.left_s == pytest.approx(REST_S)  # it begins anew


def test_a_trial_that_is_broken_off_leaves_the_way_to_another(clock: Clock) -> None:
    breaker = opened(clock)
    clock.now += REST_S
    token = breaker.begin()
    breaker.given_up(token)
    assert breaker.lets_pass()


def test_who_began_before_does_not_end_the_trial(clock: Clock) -> None:
    breaker = CircuitBreaker(clock)
    before = [breaker.begin() for _ in range(3)]
    for _ in range(FAILURES):
        breaker.failed(breaker.begin())
    clock.now += REST_S
    trial = breaker.begin()
    breaker.given_up(before[0])
    breaker.failed(before[1])
    assert not breaker.lets_pass()
    breaker.given_up(trial)
    assert breaker.lets_pass()


def test_policies_do_not_reckon_with_who_was_not_there(clock: Clock) -> None:
    breaker = CircuitBreaker(clock)
    breaker.failed()
    assert breaker.plannable
    breaker.failed(nobody_there=True)
    assert breaker.lets_pass()
    assert not breaker.plannable
    clock.now += REST_S
    assert breaker.plannable


def test_late_failures_of_before_do_not_prolong_it(clock: Clock) -> None:
    breaker = opened(clock)
    clock.now += 1
    breaker.failed()
    assert breaker.left_s == pytest.approx(REST_S - 1)
