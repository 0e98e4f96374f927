"""The open loop: seeded arrivals, waits charged to those who waited, and only our own hosts."""

from __future__ import annotations

import asyncio
import math
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import click
import httpx
import pytest
from click.testing import CliRunner

from shared.errors import DimeeError, InvalidInput, TooLarge
from testbed.load.arrivals import factor, from_trace, poisson
from testbed.load.cli import load
from testbed.load.runner import Planned, run_load
from testbed.load.scenarios import FLAT, SCENARIOS
from testbed.load.target import check_url

REFUSAL = {"error": {"code": "busy", "message": "try later"}}


def test_arrivals_are_poisson_and_seeded() -> None:
    times = poisson(50.0, 200.0, FLAT, seed=7)
    assert times == poisson(50.0, 200.0, FLAT, seed=7) != poisson(50.0, 200.0, FLAT, seed=8)
    assert times == sorted(times)
    assert 0 < times[0] <= times[-1] < 200
    assert abs(len(times) - 10_000) < 4 * 100, "within four deviations"
    gaps = [after - before for before, after in pairwise(times)]
    assert statistics.mean(gaps) == pytest.approx(1 / 50, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=0.05), "an exponential's own"


def test_a_burst_comes_at_four_times_the_rate() -> None:
    shape = SCENARIOS["burst"].shape
    times = poisson(50.0, 100.0, shape, seed=3)
    inside = sum(40 <= time < 60 for time in times)
    assert inside == pytest.approx(4 * 50 * 20, rel=0.1)
    assert len(times) - inside == pytest.approx(50 * 80, rel=0.1)
    assert factor(SCENARIOS["ramp"].shape, 0.5) == pytest.approx(1.05)


def test_too_many_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(TooLarge, match="200,000 requests"):
        poisson(1_000.0, 201.0, FLAT, seed=1)
    found = CliRunner().invoke(load, ["--rate", "5000", "--duration", "3600"])
    assert isinstance(found.exception, DimeeError)


def test_a_trace_is_sent_as_it_is(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text("# seconds\n0.5\n0.1\n\n0.5\n9.0\n")
    assert from_trace(trace, 2.0) == ([0.1, 0.5, 0.5], 1)


@pytest.mark.parametrize("line", ["soon", "nan", "-1", "inf"])
def test_a_trace_with_a_bad_line_says_which(tmp_path: Path, line: str) -> None:
    trace = tmp_path / "trace"
    trace.write_text(f"0.1\n{line}\n")
    with pytest.raises(InvalidInput, match="line 2"):
        from_trace(trace, 2.0)


def test_a_trace_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("3.0\n")
    with pytest.raises(InvalidInput, match="has 0 within"):
        from_trace(tmp_path / "trace", 2.0)
    with pytest.raises(InvalidInput, match="cannot be read"):
        from_trace(tmp_path / "none", 2.0)


@pytest.mark.parametrize("host", ["127.0.0.1:8701", "localhost", "[::1]:8701", "mobile:8701"])
def test_our_own_hosts_may_be_loaded(host: str) -> None:
    assert check_url(f"http://{host}/", allow_remote=False) == f"http://{host}"


@pytest.mark.parametrize("host", ["example.org", "127.example.org", "10.0.0.1", "localhost.io"])
def test_other_hosts_are_refused_unless_named(host: str) -> None:
    with pytest.raises(InvalidInput, match="--allow-remote"):
        check_url(f"http://{host}", allow_remote=False)
    assert check_url(f"http://{host}", allow_remote=True) == f"http://{host}"
    found = CliRunner().invoke(load, ["--url", f"http://{host}"])
    assert isinstance(found.exception, InvalidInput)


@pytest.mark.parametrize("url", ["", "mobile:8701", "ftp://localhost", "http://[::1"])
def test_an_address_that_is_none_is_refused_even_so(url: str) -> None:
    with pytest.raises(InvalidInput, match="no address"):
        check_url(url, allow_remote=True)


def test_a_fault_needs_a_testbed_that_may_be_broken() -> None:
    found = CliRunner().invoke(load, ["--url", "http://127.0.0.1:1", "--scenario", "edge-dies"])
    assert isinstance(found.exception, InvalidInput)
    assert "edge killed" in found.exception.message


def test_no_gateway_is_one_clear_sentence() -> None:
    found = CliRunner().invoke(load, ["--url", "http://127.0.0.1:1"])
    assert isinstance(found.exception, DimeeError)
    assert "dimee up" in found.exception.message


class Stalling(httpx.AsyncBaseTransport):
    """Answers at once, but for a while in which it answers nobody."""

    def __init__(self, begin_s: float, until_s: float) -> None:
        self.begin_s, self.until_s = begin_s, until_s
        self.first_at = math.nan
        self.texts: list[bytes] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        now = asyncio.get_running_loop().time()
        if math.isnan(self.first_at):
            self.first_at = now
        self.texts.append(await request.aread())
        since = now - self.first_at
        if self.begin_s <= since < self.until_s:
            await asyncio.sleep(self.until_s - since)
        return httpx.Response(429, json=REFUSAL)


def test_a_stall_is_charged_to_all_who_waited_and_nobody_is_left_out() -> None:
    plan = [Planned(number / 100, str(number), None) for number in range(100)]
    server = Stalling(0.3, 0.7)
    samples, _ = asyncio.run(run_load("http://mobile", plan, 5_000.0, transport=server))
    assert [one.number for one in samples] == list(range(100))
    assert len(server.texts) == 100
    assert {one.ending for one in samples} == {"shed"}
    assert {one.error_code for one in samples} == {"busy"}
    for one in samples[33:66]:
        due_ms = (0.7 - one.intended_s) * 1e3
        assert one.latency_ms == pytest.approx(due_ms, abs=60), one
    waited = sum(one.latency_ms > 60 for one in samples)
    assert waited >= 30, "a closed loop would have seen one slow request"


def test_what_this_process_sends_late_stays_in_the_latency() -> None:
    plan = [Planned(0.1, "a", None), Planned(0.2, "b", None)]
    hold = [(0.05, "hold", lambda: None)]

    class Holding(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            time.sleep(0.3)  # noqa: ASYNC251 the sender's own loop stands still
            return httpx.Response(429, json=REFUSAL)

    (_, second), happened = asyncio.run(
        run_load("http://mobile", plan, 5_000.0, hold, transport=Holding())
    )
    assert second.late_ms >= 190
    assert second.latency_ms >= second.late_ms + 290
    assert [one.what for one in happened] == ["hold"]


def test_an_answer_that_never_comes_is_an_ending_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("testbed.load.runner.GRACE_S", 0.05)
    plan = [Planned(0.0, "a", None), Planned(0.5, "b", None)]
    samples, _ = asyncio.run(
        run_load("http://mobile", plan, 100.0, transport=Stalling(0.0, 0.3)),
    )
    assert [one.ending for one in samples] == ["no_answer", "shed"]
    assert samples[0].error_code == "TimeoutError"


def test_a_fault_that_fails_is_said_and_the_run_goes_on() -> None:
    def fail() -> None:
        raise DimeeError("the relay is gone")

    samples, happened = asyncio.run(
        run_load(
            "http://mobile",
            [Planned(0.0, "a", None), Planned(0.1, "b", None)],
            1_000.0,
            [(0.05, "cut", fail)],
            transport=Stalling(9.0, 9.0),
        )
    )
    assert len(samples) == 2
    assert [one.error for one in happened] == ["the relay is gone"]


def test_the_command_names_every_scenario() -> None:
    option = next(one for one in load.params if one.name == "scenario")
    assert isinstance(option.type, click.Choice)
    assert set(option.type.choices) == {
        "steady", "burst", "ramp", "edge-dies", "cloud-slow", "link-flap", "rare-escalation",
    }  # fmt: skip


def test_the_command_needs_no_more_than_the_tiers() -> None:
    heavy = ["torch", "transformers", "scipy", "sklearn", "datasets", "onnx", "locust"]
    said = f"import sys, testbed.load.cli; print([one for one in {heavy} if one in sys.modules])"
    found = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
