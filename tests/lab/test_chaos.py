"""What the chaos runs call broken, late, grown and drifting."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from itertools import pairwise
from typing import cast

import psutil
import pytest

from testbed.chaos.client import Tally, closed_loop, open_loop
from testbed.chaos.client_capacity import reach
from testbed.chaos.fault_injector import HOPS, Victim
from testbed.chaos.five_minutes import KILLED, in_turn
from testbed.chaos.fuzz import Found
from testbed.chaos.overload import describe, make_body
from testbed.chaos.soak import by_minute, drift, growth
from testbed.chaos.traffic import LATE_S, Outcome, Planned, complaint
from testbed.load.target import Bed


def outcome(status: int, took_s: float, error: str = "", at_s: float = 10.0) -> Outcome:
    return Outcome(Planned(at_s, "fine", None), at_s + took_s, status, error)


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (outcome(200, 2.0), None),
        (outcome(200, 2.0 + LATE_S + 0.01), "after 2.26 s"),
        (outcome(503, 0.1, "no tier answered"), None),
        (outcome(503, 0.1), "without a clear error"),
        (outcome(500, 0.1, "internal"), "status 500"),
        (outcome(-200, 0.1, "unknown format"), "without a clear error"),
        (outcome(0, 5.0, "TimeoutError"), "no answer after 5.00 s"),
    ],
)
def test_what_breaks_the_promise(one: Outcome, says: str | None) -> None:
    said = complaint(one, 2.0)
    assert said == says if says is None else says in str(said)


def test_only_what_was_under_way_without_the_mobile_is_excused() -> None:
    lost = outcome(0, 0.5, "ReadError")
    assert complaint(lost, 2.0, [(10.2, 14.0)]) is None
    assert complaint(lost, 2.0, [(2.0, 9.9)]) is not None
    assert complaint(lost, 2.0, [(10.6, 14.0)]) is not None


def test_everything_is_broken_in_turn_and_nothing_at_once() -> None:
    faults = in_turn(300)
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


def test_layers_paused_while_their_tier_is_killed_go_on_and_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    layers = psutil.Process(int(parent.stdout.readline()))
    monkeypatch.setattr(Victim, "pid", lambda self, role: parent.pid)
    bed = Victim(cast("Bed", None))
    bed.do("pause", "edge-layers")
    bed.do("kill", "edge")
    parent.wait(10)
    bed.do("go-on", "cloud-layers")
    bed.do("go-on", "edge-layers")
    try:
        layers.wait(10)
    finally:
        if layers.is_running():
            layers.kill()


def test_growth_leaves_the_warming_up_out() -> None:
    rows = [{"at_s": 10.0 * i, "edge": 100.0 + min(i, 30)} for i in range(180)]
    assert growth(rows, "edge", 300) == 0
    rows = [{"at_s": 10.0 * i, "edge": 100.0 + i} for i in range(180)]
    grown = growth(rows, "edge", 300)
    assert grown is not None
    assert grown > 1
    assert growth(rows[:5], "edge", 300) is None


def test_drift_of_p99_by_the_minute() -> None:
    steady = [outcome(200, 0.1, at_s=float(second)) for second in range(600)]
    assert by_minute(steady) == [100.0] * 10
    assert drift(by_minute(steady)) == 1.0
    assert drift([100.0] * 5 + [300.0] * 5) == 3.0


def test_a_case_is_judged_by_its_status_and_its_sentence() -> None:
    found = Found()
    sentence = json.dumps({"error": {"message": "text: is empty"}}).encode()
    for status, body in ((200, b""), (422, sentence), (503, sentence), (504, sentence)):
        found.judge("case", lambda status=status, body=body: (status, body))  # type: ignore[misc]
    assert not found.wrong
    found.judge("case", lambda: (500, sentence))
    found.judge("case", lambda: (422, b"<html>"))
    assert len(found.wrong) == 2


async def _server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Every third request is refused, in two pieces."""
    number = 0
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            json.loads(await reader.readexactly(length))
            number += 1
            status = b"429 Too Many" if number % 3 == 0 else b"200 OK"
            writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\n\r\n{")
            await writer.drain()
            writer.write(b"}")
    except asyncio.IncompleteReadError:
        writer.close()


def test_the_cheap_client_counts_every_request_once() -> None:
    async def run() -> tuple[Tally, Tally]:
        server = await asyncio.start_server(_server, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        body = make_body("t", 1000, 0)
        closed = await closed_loop(port, b"/", body, 1, 0.1)
        opened = await open_loop(port, b"/", body, [0.001 * i for i in range(90)], 5.0)
        server.close()
        return closed, opened

    closed, opened = asyncio.run(run())
    assert closed.count(200) >= 2 * closed.count(429) > 0
    assert opened.total == 90
    assert opened.count(0) == 0
    assert len(opened.late_s) == 90
    assert describe(opened, 1000)["by_status"].keys() == {"200", "429"}


def test_what_is_not_answered_or_cannot_be_sent_is_counted_too() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def ask_nobody() -> tuple[Tally, Tally]:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        body, times = make_body("t", 1000, 0), [0.001 * i for i in range(1, 31)]
        unanswered = await open_loop(port, b"/", body, times, 0.05)
        server.close()
        return unanswered, await open_loop(port, b"/", body, times, 0.05)

    for tally in asyncio.run(ask_nobody()):
        assert tally.count(0) == tally.total == len(tally.late_s) == 30
        assert min(tally.by_status[0]) >= 0.05


def test_the_cheap_client_sends_six_thousand_a_second() -> None:
    found = reach(6_000, 0.5)
    assert found["by_status"].keys() == {"429"}
    assert found["sent"] == pytest.approx(3_000, rel=0.1)
    assert found["client_late_p99_ms"] is not None
    assert found["connections"] >= 500
