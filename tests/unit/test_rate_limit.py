"""Token buckets: the rate limit of clients and the escalation budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_client.resilience.escalation_budget import Allowance, EscalationBudget
from shared.serving.rate_limit import RateLimit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_client_has_a_burst_and_then_the_rate() -> None:
    clock = Clock()
    limit = RateLimit(2.0, 3, clock)
    assert [limit.acquire("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert limit.acquire("b") == 0
    clock.now = 0.5
    assert limit.acquire("a") == 0
    assert limit.acquire("a") == 0.5
    clock.now = 100
    assert [limit.acquire("a") == 0 for _ in range(4)] == [True, True, True, False]


def test_charged_requests_may_overdraw_the_bucket() -> None:
    clock = Clock()
    limit = RateLimit(10.0, 5, clock)
    assert limit.acquire("a") == 0
    limit.charge("a", 999)
    assert limit.acquire("a") == pytest.approx(99.6)
    clock.now = 99.7
    assert limit.acquire("a") == 0


def test_least_recently_seen_clients_are_dropped() -> None:
    limit = RateLimit(1.0, 1, Clock(), max_clients=3)
    for name in ("a", "b", "c", "a", "d"):
        limit.acquire(name)
    assert len(limit) == 3
    assert limit.acquire("a") > 0, "seen lately"
    assert limit.acquire("b") == 0, "dropped"


@given(
    st.floats(0.1, 100),
    st.integers(1, 50),
    st.lists(st.floats(0, 2), min_size=1, max_size=100),
)
def test_requests_never_exceed_rate_and_burst(per_s: float, burst: int, waits: list[float]) -> None:
    clock = Clock()
    limit = RateLimit(per_s, burst, clock)
    allowed = 0
    for wait in waits:
        clock.now += wait
        allowed += limit.acquire("a") == 0
    assert allowed <= burst + per_s * clock.now + 1e-6


@given(st.floats(0, 1), st.integers(1, 30), st.integers(1, 300), st.integers(1, 2))
def test_escalations_stay_within_share_and_burst(
    share: float, burst: int, requests: int, hops: int
) -> None:
    budget = EscalationBudget(share, burst)
    taken = sum(
        sum(allowance.take() for _ in range(hops))
        for allowance in (budget.allowance("a") for _ in range(requests))
    )
    assert taken <= share * requests + burst + 1e-6
    assert taken >= min(requests, burst), "the burst is always allowed"


def test_budgets_are_separate_bounded_and_optional() -> None:
    budget = EscalationBudget(0.0, 1, max_clients=2)
    first, second = budget.allowance("a"), budget.allowance("a")
    assert (first.take(), second.take()) == (True, False)
    assert budget.allowance("b").take()
    budget.allowance("c")
    assert len(budget) == 2
    assert all(Allowance().take() for _ in range(1000))
