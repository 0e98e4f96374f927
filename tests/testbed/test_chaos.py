"""Verdicts of the chaos runs: violations, memory growth, p99, and the load generator's capacity."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise

import psutil
import pytest

from shared.domain import InputText
from testbed.chaos.client_capacity import measure_capacity
from testbed.chaos.fault_injector import HOPS, FaultInjector
from testbed.chaos.five_minutes import KILLED, faults_in_turn
from testbed.chaos.fuzz import FuzzResult
from testbed.chaos.overload import describe, infer_body
from testbed.chaos.soak import memory_growth, p99_by_minute, p99_ratio
from testbed.chaos.traffic import TOLERANCE_S, Outcome, violation
from testbed.load.http_client import Answer
from testbed.load.runner import PlannedRequest
from testbed.load.tally import Tally
from testbed.load.target import LoadTarget


def outcome(status: int, latency_s: float, error: str = "", at_s: float = 10.0) -> Outcome:
    return Outcome(PlannedRequest(at_s, InputText("fine"), None), at_s + latency_s, status, error)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (outcome(200, 2.0), None),
        (outcome(200, 2.0 + TOLERANCE_S + 0.01), "after 2.26 s"),
        (outcome(503, 0.1, "no tier answered"), None),
        (outcome(503, 0.1), "without a clear error"),
        (outcome(500, 0.1, "internal"), "status 500"),
        (outcome(-200, 0.1, "unknown format"), "without a clear error"),
        (outcome(0, 5.0, "TimeoutError"), "no answer after 5.00 s"),
    ],
)
def test_violations_are_named(one: Outcome, expected: str | None) -> None:
    found = violation(one, 2.0)
    assert found == expected if expected is None else expected in str(found)


def test_only_requests_under_way_without_the_mobile_are_exempt() -> None:
    lost = outcome(0, 0.5, "ReadError")
    assert violation(lost, 2.0, [(10.2, 14.0)]) is None
    assert violation(lost, 2.0, [(2.0, 9.9)]) is not None
    assert violation(lost, 2.0, [(10.6, 14.0)]) is not None


def test_faults_come_in_turn_and_do_not_overlap() -> None:
    faults = faults_in_turn(300)
    assert {fault.name for fault in faults} == {*KILLED, *HOPS}
    for one, following in pairwise(faults):
        assert one.at_s + one.for_s < following.at_s
    assert faults[-1].at_s + faults[-1].for_s < 300


PARENT = """
import subprocess, sys
until_end = [sys.executable, "-c", "import sys; sys.stdin.read()"]
child = subprocess.Popen(until_end, stdin=subprocess.PIPE)
print(child.pid, flush=True)
child.wait()
"""


def test_paused_layer_processes_of_a_killed_tier_continue_and_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    layers = psutil.Process(int(parent.stdout.readline()))
    monkeypatch.setattr(FaultInjector, "pid", lambda self, role: parent.pid)
    injector = FaultInjector(LoadTarget("", ""))
    injector.inject("pause", "edge-layers")
    injector.inject("kill", "edge")
    parent.wait(10)
    injector.inject("continue", "cloud-layers")
    injector.inject("continue", "edge-layers")
    try:
        layers.wait(10)
    finally:
        if layers.is_running():
            layers.kill()


def test_memory_growth_ignores_the_warm_up() -> None:
    rows = [{"at_s": 10.0 * i, "edge": 100.0 + min(i, 30)} for i in range(180)]
    assert memory_growth(rows, "edge", 300) == 0
    rows = [{"at_s": 10.0 * i, "edge": 100.0 + i} for i in range(180)]
    grown = memory_growth(rows, "edge", 300)
    assert grown is not None
    assert grown > 1
    assert memory_growth(rows[:5], "edge", 300) is None


def test_p99_by_minute_and_its_ratio() -> None:
    steady = [outcome(200, 0.1, at_s=float(second)) for second in range(600)]
    assert p99_by_minute(steady) == [100.0] * 10
    assert p99_ratio(p99_by_minute(steady)) == 1.0
    assert p99_ratio([100.0] * 5 + [300.0] * 5) == 3.0


def test_fuzz_case_is_checked_by_status_and_message() -> None:
    found = FuzzResult()
    message = json.dumps({"error": {"message": "text: is empty"}}).encode()
    for status, body in ((200, b""), (422, message), (503, message), (504, message)):
        found.check("case", lambda status=status, body=body: (status, body))  # type: ignore[misc]
    assert not found.failures
    found.check("case", lambda: (500, message))
    found.check("case", lambda: (422, b"<html>"))
    assert len(found.failures) == 2


def test_figures_of_a_run_count_every_status() -> None:
    tally = Tally(counts_lateness=True, seconds=2.0, connections=3)
    for number in range(90):
        tally.add(Answer(number, 429 if number % 3 else 200, b"", 0.1, 0.001))
    found = describe(tally, 1000)
    assert found["by_status"] == {"200": 30, "429": 60}
    assert (found["sent"], found["goodput_rps"], found["connections"]) == (90, 15.0, 3)
    assert (found["admitted_p99_ms"], found["client_late_p50_ms"]) == (100.0, 1.0)


def test_each_body_is_an_attempt_of_its_own() -> None:
    body = infer_body("t", 1000, 0)
    found = [json.loads(body(number)) for number in range(600)]
    assert len({one["attempt_id"] for one in found}) == 600
    assert all(one["deadline_ms"] == 1000 and one["text"] for one in found)


def test_load_generator_sends_every_request_at_a_high_rate() -> None:
    found = measure_capacity(6_000, 0.5)
    assert found["by_status"].keys() == {"429"}
    assert found["sent"] == pytest.approx(3_000, rel=0.1)
    assert found["client_late_p99_ms"] is not None
    assert found["connections"] >= 500
