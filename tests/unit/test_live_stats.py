"""Figures of the last minute: windows, percentiles, bounds, and what belongs to a request."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from mobile_client.gateway.dashboard import live_stats
from mobile_client.gateway.dashboard.live_stats import (
    MAX_FINISHED,
    SAMPLES,
    LiveStats,
    follow_attempts,
)
from shared.domain import Reason, State, Tier
from tests.support.clock import Clock
from tests.support.entries import caller


def end(stats: LiveStats, number: int, **facts: Any) -> None:
    stats.attempt_ended(caller(f"a{number}", **({"request_id": f"r{number}"} | facts)))


def test_figures_cover_the_last_minute() -> None:
    clock = Clock()
    stats = LiveStats(clock)
    end(stats, 1)
    clock.now += 1
    end(stats, 2, tier=Tier.MOBILE, cost_lambda=1.0)
    end(stats, 3, state=State.FAILED, label=None, exit_layer=None, cost_lambda=0.5)
    figures: Any = stats.snapshot()
    assert (figures["answered"], figures["failed"]) == (2, 1)
    assert figures["shares"] == {"mobile": 0.5, "edge": 0.5, "cloud": 0.0}
    assert figures["cost_lambda"] == pytest.approx(5.0)
    assert figures["all_cloud_lambda"] == pytest.approx(36.0)
    assert figures["cost_usd"] == pytest.approx(0.003)
    clock.now += 1
    assert stats.snapshot()["requests_per_s"] == pytest.approx(3 / live_stats.RATE_S)
    clock.now += 58
    assert stats.snapshot()["answered"] == 1
    assert stats.snapshot()["requests_per_s"] == 0.0
    clock.now += 1
    figures = stats.snapshot()
    assert (figures["answered"], figures["failed"], figures["cost_lambda"]) == (0, 0, 0)
    assert figures["total_ms"] == {"p50": None, "p95": None, "p99": None}
    assert stats.count == 3


def test_percentiles_are_those_of_the_durations() -> None:
    clock = Clock()
    stats = LiveStats(clock)
    queue_ms = [float(number) for number in range(300)]
    for number, value in enumerate(queue_ms):
        clock.now += 0.02
        end(stats, number, queue_ms=value, round_trip_ms=2 * value)
    figures: Any = stats.snapshot()
    for percent in (50, 95, 99):
        expected = np.percentile(queue_ms, percent)
        assert figures["hops_ms"]["queue"][f"p{percent}"] == pytest.approx(expected)
        total = figures["total_ms"][f"p{percent}"]
        assert total == pytest.approx(0.25 + 2 * expected), "the decision and the round trip"
    assert figures["hops_ms"]["compute"] == {"p50": 2.0, "p95": 2.0, "p99": 2.0}


def test_attempts_of_a_request_are_one_record_and_audits_are_none() -> None:
    stats = LiveStats(Clock())
    first = {"request_id": "r1", "final": False, "ordinal": 1, "all_cloud_lambda": None}
    stats.attempt_ended(caller("a1", **first, tier=Tier.MOBILE, cost_lambda=1.0, started_at=1.5))
    assert not stats.finished
    second = {"request_id": "r1", "ordinal": 2, "reason": Reason.ESCALATE}
    stats.attempt_ended(caller("a2", **second, tier=Tier.CLOUD, cost_lambda=18.0, started_at=2.0))
    stats.attempt_ended(caller("a3", request_id="r1", reason=Reason.AUDIT, final=False))
    (finished,) = stats.finished
    record = finished.record
    assert (record.tier, record.reason, record.attempts) == (Tier.CLOUD, Reason.ESCALATE, 2)
    assert record.cost_lambda == 19.0
    assert record.total_ms == pytest.approx(0.25 + 500.0 + 10.0)
    assert record.trace_id == caller().trace_id
    figures: Any = stats.snapshot()
    assert (figures["answered"], figures["cost_lambda"]) == (1, 19.0)
    assert figures["shares"]["cloud"] == 1.0


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_stats, "MAX_UNFINISHED", 100)
    clock = Clock()
    stats = LiveStats(clock)
    count = MAX_FINISHED + SAMPLES
    for number in range(count):
        end(stats, number, queue_ms=float(number))
        end(stats, 10_000 + number, final=False)
    figures: Any = stats.snapshot()
    assert figures["answered"] == stats.count == count
    assert len(stats.finished) == MAX_FINISHED
    assert [one.number for one in stats.finished][-1] == stats.count
    assert len(stats._unfinished) == 100
    samples = stats._seconds[-1].hops_ms
    assert (len(samples.values), samples.seen) == (SAMPLES, 2 * count)
    assert figures["hops_ms"]["queue"]["p99"] <= count
    for _ in range(200):
        clock.now += 1
        end(stats, 0)
    assert len(stats._seconds) <= live_stats.WINDOW_S + 1


def test_attempts_are_followed_in_the_task_that_makes_them() -> None:
    stats = LiveStats(Clock())

    async def request(number: int) -> list[str]:
        with follow_attempts() as entries:
            await asyncio.sleep(0)

            async def attempt() -> None:
                end(stats, number)

            await asyncio.gather(attempt(), asyncio.create_task(attempt()))
            await asyncio.sleep(0)
        end(stats, 99)
        return [entry.request_id for entry in entries]

    async def main() -> list[list[str]]:
        return await asyncio.gather(*map(request, range(3)))

    assert asyncio.run(main()) == [[f"r{number}"] * 2 for number in range(3)]
