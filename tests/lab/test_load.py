"""Load that does not flatter: it counts from the intention, skips nothing, and says what it saw."""

from __future__ import annotations

import asyncio
import json
import re
from itertools import pairwise
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import httpx
import pytest

from lab.links_study import page as links_page
from lab.load.arrivals import MOST_REQUESTS, from_trace, poisson
from lab.load.ask import Sample, read
from lab.load.bed import check_url
from lab.load.page import page
from lab.load.report import made_with, make_report
from lab.load.runner import Planned, run_load
from lab.load.scenarios import FLAT, SCENARIOS
from lab.load.texts import make_texts
from shared.errors import InvalidInput, TooLarge
from shared.wire import (
    AttemptReport,
    Classification,
    ClassifyItem,
    ClassifyResponse,
    CostReport,
)

DEADLINE = 1_000.0


def answer(tier: str = "edge", total_ms: float = 8.0, text: str = "positive") -> bytes:
    attempt = AttemptReport.model_validate(
        {
            "attempt_id": "a",
            "tier": tier,
            "reason": "route",
            "state": "answered",
            "exit_layer": 3,
            "queue_ms": 1.0,
            "compute_ms": 2.0,
            "network_ms": 3.0,
            "round_trip_ms": 6.0,
            "sent_bytes": 10,
            "received_bytes": 10,
            "cost_lambda": 3.0,
        }
    )
    result = Classification(
        request_id="r",
        label=text,
        probabilities={text: 1.0},
        confidence=0.9,
        tier=attempt.tier,
        exit_layer=3,
        policy="edge",
        difficulty=None,
        failed_over=False,
        escalated=False,
        truncated=False,
        degraded=False,
        tokens=5,
        decision_ms=0.5,
        total_ms=total_ms,
        bundle_id="b",
        attempts=[attempt],
        cost=CostReport(
            cost_lambda=3.0, all_cloud_lambda=12.0, cost_usd=0.0, energy_mj=0.0, price_book="p"
        ),
    )
    return ClassifyResponse(items=[ClassifyItem(result=result)]).model_dump_json().encode()


class Stall(httpx.AsyncBaseTransport):
    """Answers nothing until all that was planned has been sent."""

    def __init__(self, requests: int) -> None:
        self.missing, self.open = requests, asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.missing -= 1
        if self.missing == 0:
            self.open.set()
        await self.open.wait()
        return httpx.Response(200, content=answer())


def test_a_stall_is_charged_to_all_who_waited_for_it() -> None:
    times = [0.0, 0.02, 0.04, 0.06]
    planned = [Planned(at, "a film", None) for at in times]

    async def run() -> list[Sample]:
        samples, _ = await run_load("http://x", planned, DEADLINE, transport=Stall(len(times)))
        return samples

    samples = asyncio.run(run())
    assert [one.ending for one in samples] == ["answered"] * 4
    assert samples[0].latency_ms - samples[3].latency_ms == pytest.approx(60, abs=15)
    assert [one.intended_s for one in samples] == times


def test_what_nobody_answers_is_no_answer_and_not_missing() -> None:
    class Broken(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            raise httpx.ReadError("gone")

    planned = [Planned(0.0, "a film", None)] * 3

    async def run() -> list[Sample]:
        return (await run_load("http://x", planned, DEADLINE, transport=Broken()))[0]

    samples = asyncio.run(run())
    assert [(one.ending, one.error_code) for one in samples] == [("no_answer", "ReadError")] * 3


def test_actions_happen_and_say_how_they_failed() -> None:
    def fail() -> None:
        raise RuntimeError("no such process")

    done: list[str] = []
    actions = [(0.0, "cut", lambda: done.append("cut")), (0.01, "kill", fail)]

    async def run() -> list[Any]:
        planned = [Planned(0.02, "a film", None)]
        return (await run_load("http://x", planned, DEADLINE, actions, Stall(1)))[1]

    happened = asyncio.run(run())
    assert done == ["cut"]
    assert [(one.what, one.error) for one in happened] == [
        ("cut", None),
        ("kill", "no such process"),
    ]


def test_poisson_is_seeded_and_has_the_gaps_of_its_rate() -> None:
    times = poisson(50, 200, FLAT, seed=7)
    assert times == poisson(50, 200, FLAT, seed=7)
    assert times != poisson(50, 200, FLAT, seed=8)
    gaps = [after - before for before, after in pairwise(times)]
    assert mean(gaps) == pytest.approx(1 / 50, rel=0.05)
    assert pstdev(gaps) == pytest.approx(1 / 50, rel=0.1)  # exponential: as wide as its mean


def test_a_burst_has_four_times_the_rate_in_the_middle() -> None:
    times = poisson(50, 100, SCENARIOS["burst"].shape, seed=1)
    middle = sum(40 <= at < 60 for at in times) / 20
    around = sum(at < 40 or at >= 60 for at in times) / 80
    assert middle / around == pytest.approx(4, rel=0.15)


def test_load_is_bounded() -> None:
    with pytest.raises(TooLarge, match="lower --rate"):
        poisson(MOST_REQUESTS, 10, FLAT, seed=1)
    with pytest.raises(TooLarge):
        poisson(1, 100_000, FLAT, seed=1)


def test_a_trace_is_kept_to_the_duration(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text("# seconds\n0.5\n0.1\n9.0\n")
    assert from_trace(trace, 5) == [0.1, 0.5]
    trace.write_text("soon\n")
    with pytest.raises(InvalidInput, match="line 1"):
        from_trace(trace, 5)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8701", "http://localhost:8701/", "http://[::1]:1", "http://mobile:1"]
)
def test_the_testbeds_own_addresses_may_be_loaded(url: str) -> None:
    assert check_url(url, allow_remote=False) == url.rstrip("/")


@pytest.mark.parametrize("url", ["http://example.org", "http://127.evil.org", "http://10.0.0.1"])
def test_nobody_elses_host_is_loaded_unasked(url: str) -> None:
    with pytest.raises(InvalidInput, match="--allow-remote"):
        check_url(url, allow_remote=False)
    assert check_url(url, allow_remote=True) == url


@pytest.mark.parametrize(
    ("status", "ending"),
    [(429, "shed"), (504, "timed_out"), (503, "unavailable"), (422, "refused"), (500, "failed")],
)
def test_endings_by_status(status: int, ending: str) -> None:
    sample = Sample(0, 0.0)
    read(sample, status, b'{"error": {"code": "why"}}')
    assert (sample.ending, sample.error_code) == (ending, "why")


def test_an_answer_that_is_none_is_failed() -> None:
    sample = Sample(0, 0.0)
    read(sample, 200, b"{}")
    assert (sample.ending, sample.error_code) == ("failed", "unknown_format")


def sampled(count: int = 40) -> list[Sample]:
    samples = []
    for number in range(count):
        sample = Sample(number, number / 10, late_ms=1.0, latency_ms=15.0)
        if number % 10 == 9:
            read(sample, 429, b'{"error": {"code": "overloaded"}}')
        else:
            read(sample, 200, answer(("mobile", "edge", "cloud")[number % 3]))
        samples.append(sample)
    return samples


def reported(**facts: Any) -> dict[str, Any]:
    known = {
        "scenario": "steady",
        "scenario_title": "the same rate",
        "path": "policy",
        "policy": "value",
        "rate": 10.0,
        "duration_s": 4.0,
        "deadline_ms": DEADLINE,
        "seed": 1,
        "bundle_id": "b",
        "links": [],
        "label": None,
        "no_label_because": "the testbed has no emulated link",
        "ledger": {"clean": True, "requests": 36},
        **made_with(),
    }
    return make_report(known | facts, sampled(), [], 4.0, DEADLINE)


def test_every_request_is_in_the_report_once() -> None:
    report = reported()
    assert report["requests"] == 40
    assert report["endings"] == {"answered": 36, "shed": 4}
    assert sum(one["requests"] for one in report["over_time"]) == 40
    assert sum(report["answered_by"].values()) == 36
    assert report["cost"]["against_all_cloud"] == pytest.approx(0.25)


def test_the_parts_of_the_latency_sum_to_it() -> None:
    for parts in reported()["hops_ms"].values():
        assert sum(parts.values()) == pytest.approx(15.0)
        assert min(parts.values()) >= 0


def test_the_page_needs_nothing_else_and_runs_nothing() -> None:
    html = page(reported(scenario_title="<script>alert(1)</script>"))
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert not re.search(r"(src|href|url\()\s*=?\s*[\"']?(https?:)?//", html)
    assert html.count("<svg") >= 4
    for fact in ("commit", "seed", "no emulated link"):
        assert fact in html


def test_a_report_can_be_written() -> None:
    assert json.loads(json.dumps(reported()))["format"] == 1


def test_texts_are_seeded() -> None:
    assert make_texts(50, 3) == make_texts(50, 3)
    assert len({len(text.split()) for text in make_texts(50, 3)}) > 5


def test_every_scenario_can_be_planned() -> None:
    for name, scenario in SCENARIOS.items():
        assert poisson(scenario.rate, 20, scenario.shape, seed=1), name
        assert all(0 <= fault.at <= 1 for fault in scenario.faults)


def test_the_page_of_links_names_the_worst_of_each() -> None:
    one = {"off": {"rtt_ms": 0.01, "up_mbps": 0.0, "down_mbps": 0.0}}
    for what in ("rtt_ms", "up_mbps", "down_mbps"):
        one |= {what: 10.0, f"label_{what}": 10.0}
    worse = one | {"off": {"rtt_ms": -0.04, "up_mbps": 0.0, "down_mbps": 0.0}}
    text = links_page({"rounds": 2, **made_with(), "links": {"4g": [one, worse]}})
    assert "| 4g | 10 | 10.00 | -4.0% |" in text
    assert "WebPageTest" in text
