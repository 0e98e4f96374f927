"""``dimee load``: seeded arrivals, latencies from the intended time, and no load on other hosts."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from shared.domain import InputText
from shared.errors import DimeeError, InvalidInput, TooLarge
from testbed.load.arrivals import FLAT, from_trace, poisson, rate_share
from testbed.load.cli import load
from testbed.load.http_client import HttpClient
from testbed.load.runner import Action, PlannedRequest, run_load
from testbed.load.sample import PATH
from testbed.load.scenarios import SCENARIOS
from testbed.load.target import check_url
from tests.support.http_server import HttpServer, in_turn, response

REFUSAL = response(429, b'{"error": {"code": "busy", "message": "try later"}}')


def test_arrivals_are_poisson_and_seeded() -> None:
    times = poisson(50.0, 200.0, FLAT, seed=7)
    assert times == poisson(50.0, 200.0, FLAT, seed=7) != poisson(50.0, 200.0, FLAT, seed=8)
    assert times == sorted(times)
    assert 0 < times[0] <= times[-1] < 200
    assert abs(len(times) - 10_000) < 4 * 100, "within four standard deviations"
    gaps = [after - before for before, after in pairwise(times)]
    assert statistics.mean(gaps) == pytest.approx(1 / 50, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=0.05), (
        "as in an exponential distribution"
    )


def test_burst_has_four_times_the_rate() -> None:
    shape = SCENARIOS["burst"].shape
    times = poisson(50.0, 100.0, shape, seed=3)
    inside = sum(40 <= time < 60 for time in times)
    assert inside == pytest.approx(4 * 50 * 20, rel=0.1)
    assert len(times) - inside == pytest.approx(50 * 80, rel=0.1)
    assert rate_share(SCENARIOS["ramp"].shape, 0.5) == pytest.approx(1.05)


def test_too_many_requests_are_refused_before_any_is_sent() -> None:
    with pytest.raises(TooLarge, match="200,000 requests"):
        poisson(1_000.0, 201.0, FLAT, seed=1)
    found = CliRunner().invoke(load, ["--rate", "5000", "--duration", "3600"])
    assert isinstance(found.exception, DimeeError)


def test_trace_gives_the_send_times(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    trace.write_text("# seconds\n0.5\n0.1\n\n0.5\n9.0\n")
    assert from_trace(trace, 2.0) == ([0.1, 0.5, 0.5], 1)


@pytest.mark.parametrize("line", ["soon", "nan", "-1", "inf"])
def test_invalid_line_of_a_trace_is_named(tmp_path: Path, line: str) -> None:
    trace = tmp_path / "trace"
    trace.write_text(f"0.1\n{line}\n")
    with pytest.raises(InvalidInput, match="line 2"):
        from_trace(trace, 2.0)


def test_empty_trace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trace").write_text("3.0\n")
    with pytest.raises(InvalidInput, match="has 0 within"):
        from_trace(tmp_path / "trace", 2.0)
    with pytest.raises(InvalidInput, match="cannot be read"):
        from_trace(tmp_path / "none", 2.0)


@pytest.mark.parametrize("host", ["127.0.0.1:8701", "localhost", "[::1]:8701", "mobile:8701"])
def test_own_hosts_may_be_loaded(host: str) -> None:
    assert check_url(f"http://{host}/", allow_remote=False) == f"http://{host}"


@pytest.mark.parametrize("host", ["example.org", "127.example.org", "10.0.0.1", "localhost.io"])
def test_other_hosts_are_refused_unless_allowed(host: str) -> None:
    with pytest.raises(InvalidInput, match="--allow-remote"):
        check_url(f"http://{host}", allow_remote=False)
    assert check_url(f"http://{host}", allow_remote=True) == f"http://{host}"
    found = CliRunner().invoke(load, ["--url", f"http://{host}"])
    assert isinstance(found.exception, InvalidInput)


@pytest.mark.parametrize("url", ["", "mobile:8701", "ftp://localhost", "http://[::1"])
def test_invalid_address_is_refused_even_if_remote_is_allowed(url: str) -> None:
    with pytest.raises(InvalidInput, match="; give http://"):
        check_url(url, allow_remote=True)


def test_fault_needs_a_testbed_of_its_own() -> None:
    found = CliRunner().invoke(load, ["--url", "http://127.0.0.1:1", "--scenario", "edge-dies"])
    assert isinstance(found.exception, InvalidInput)
    assert "edge killed" in found.exception.message


def test_report_that_cannot_be_written_is_refused_before_the_load(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = CliRunner().invoke(load, ["--out", str(tmp_path / "file" / "report")])
    assert isinstance(done.exception, InvalidInput)
    assert "report.json cannot be written" in done.exception.message
    assert "starting" not in done.output


def test_missing_gateway_is_one_clear_sentence() -> None:
    found = CliRunner().invoke(load, ["--url", "http://127.0.0.1:1"])
    assert isinstance(found.exception, DimeeError)
    assert "dimee up" in found.exception.message


def requests_at(*times: float) -> list[PlannedRequest]:
    return [PlannedRequest(at, InputText(str(number)), None) for number, at in enumerate(times)]


def test_stall_is_charged_to_every_request_that_waited() -> None:
    async def run() -> None:
        stall_ended = asyncio.Event()

        async def after_the_stall(_body: bytes) -> bytes:
            await stall_ended.wait()
            return REFUSAL

        async with HttpServer(after_the_stall) as server:
            plan = requests_at(*(number / 100 for number in range(40)))
            client = HttpClient(server.url, PATH)
            running = asyncio.create_task(run_load(client, plan, 60_000.0))
            await server.wait_for(len(plan))  # all are sent although none was answered
            stall_ended.set()
            samples, _ = await running
            texts = [json.loads(body)["texts"] for body in server.bodies]
        assert sorted(texts) == sorted([one.text.text] for one in plan)
        assert [one.number for one in samples] == list(range(40))
        assert {one.ending for one in samples} == {"shed"}
        assert {one.error_code for one in samples} == {"busy"}
        # The stall ends after the last request was due: all requests waited at least until then.
        for one in samples:
            assert one.latency_ms >= (plan[-1].at_s - one.intended_s) * 1e3

    asyncio.run(run())


def test_time_that_this_process_sends_late_is_part_of_the_latency() -> None:
    async def run() -> None:
        async def block_the_sender(_body: bytes) -> bytes:
            time.sleep(0.3)  # noqa: ASYNC251 the sender runs in the same event loop
            return REFUSAL

        async with HttpServer(block_the_sender) as server:
            actions = [Action(0.05, "nothing", lambda: None)]
            client = HttpClient(server.url, PATH)
            (_, second), records = await run_load(client, requests_at(0.1, 0.2), 60_000.0, actions)
        assert second.late_ms >= 190
        assert second.latency_ms >= second.late_ms + 290
        assert [one.name for one in records] == ["nothing"]

    asyncio.run(run())


def test_missing_answer_is_an_ending() -> None:
    async def run() -> list[tuple[str, str | None]]:
        async def first_never(body: bytes) -> bytes:
            if json.loads(body)["texts"] == ["0"]:
                await asyncio.Event().wait()
            return REFUSAL

        async with HttpServer(first_never) as server:
            client = HttpClient(server.url, PATH)
            samples, _ = await run_load(client, requests_at(0.0, 0.5), 100.0, grace_s=0.05)
        return [(one.ending, one.error_code) for one in samples]

    assert asyncio.run(run()) == [("no_answer", "timeout"), ("shed", "busy")]


def test_failed_action_is_reported_and_the_run_goes_on() -> None:
    def fail() -> None:
        raise DimeeError("the relay is gone")

    async def run() -> None:
        async with HttpServer(in_turn([REFUSAL])) as server:
            client = HttpClient(server.url, PATH)
            actions = [Action(0.05, "stall", fail)]
            samples, records = await run_load(client, requests_at(0.0, 0.1), 60_000.0, actions)
        assert [one.ending for one in samples] == ["shed", "shed"]
        assert [one.error for one in records] == ["the relay is gone"]

    asyncio.run(run())


def test_command_offers_every_scenario() -> None:
    option = next(one for one in load.params if one.name == "scenario")
    assert isinstance(option.type, click.Choice)
    assert set(option.type.choices) == {
        "steady", "burst", "ramp", "edge-dies", "cloud-slow", "link-flap", "rare-escalation",
    }  # fmt: skip


def test_command_imports_no_lab_package() -> None:
    heavy = ["torch", "transformers", "scipy", "sklearn", "datasets", "onnx", "locust", "lab"]
    said = f"import sys, testbed.load.cli; print([one for one in {heavy} if one in sys.modules])"
    found = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
