"""The faults that schedules draw, and what a testbed leaves behind."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.errors import DimeeError
from testbed.chaos.fault_injector import FaultInjector
from testbed.chaos.faults import FAULTS
from testbed.chaos.faults.fault_kind import FaultKind, FaultNotPossible
from testbed.chaos.leftovers import Footprint
from testbed.chaos.schedules import Journal, TimedFault, hold_fault, make_faults
from testbed.load.target import LoadTarget

LISTENS = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_schedules_draw_every_kind_with_its_names_and_variants() -> None:
    drawn = [fault for seed in range(300) for fault in make_faults(seed, 20.0)]
    assert {fault.kind for fault in drawn} == FAULTS.keys()
    for fault in drawn:
        assert fault.name in FAULTS[fault.kind].names
        assert fault.spec in FAULTS[fault.kind].specs


def test_fault_that_the_machine_does_not_allow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def refused(injector: FaultInjector, name: str, spec: str | None) -> Iterator[None]:
        raise FaultNotPossible("mounting needs root")
        yield

    monkeypatch.setitem(FAULTS, "full", FaultKind(refused, ("mobile",), stops_the_process=True))
    journal = Journal()
    hold_fault(FaultInjector(LoadTarget("", "")), TimedFault(0, "full", "mobile", 60), journal)
    assert journal.left_out == ["full mobile was left out: mounting needs root"]
    assert journal.mobile_down == []


def test_storm_of_signals_lasts_until_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, str]] = []
    ready: list[str] = []
    monkeypatch.setattr(
        FaultInjector, "inject", lambda self, kind, name, spec=None: sent.append((kind, name))
    )
    monkeypatch.setattr(FaultInjector, "wait_ready", lambda self, role: ready.append(role))
    with FAULTS["terminate"].hold(FaultInjector(LoadTarget("", "")), "mobile", None):
        until = time.monotonic() + 30
        while len(sent) < 3 and time.monotonic() < until:
            time.sleep(0.01)
    count = len(sent)
    assert count >= 3
    assert set(sent) == {("terminate", "mobile")}
    assert ready == ["mobile"]


def test_left_processes_ports_and_files_are_found(tmp_path: Path) -> None:
    scratch, folder = tmp_path / "scratch", tmp_path / "state"
    scratch.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENS],
        env=os.environ | {"TMPDIR": str(scratch)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    port = int(process.stdout.readline())
    footprint = Footprint(folder, scratch, os.getpid(), frozenset({port}))
    try:
        assert footprint.orphans(0) == []  # this process is its parent
        stranger = Footprint(folder, scratch, 2**22 + 1, frozenset({port}))
        [orphan] = stranger.orphans(0)
        assert f" {process.pid} " in orphan
        (scratch / "a.part").touch()
        found = footprint.left_behind(time.time(), 0)
        assert [sentence.partition(":")[0] for sentence in found] == [
            "a process is left",
            f"port {port} is left open by",
            "a file is left",
        ]
    finally:
        process.communicate()
    (scratch / "a.part").unlink()
    assert footprint.left_behind(time.time(), 0) == []
    folder.mkdir()
    assert footprint.left_behind(time.time(), 0) == [f"a file is left: {folder}"]


def test_port_that_another_process_got_later_is_not_left_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        footprint = Footprint(
            tmp_path / "state", tmp_path, os.getpid(), frozenset({server.getsockname()[1]})
        )
        assert footprint.left_behind(stopped_at=0.0, wait_s=0) == []


def test_program_that_forks_ends_with_its_children() -> None:
    with FAULTS["fork"].hold(FaultInjector(LoadTarget("", "")), "mobile", None):
        pass


def test_program_that_forks_and_fails_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMEE_BUNDLE", "/none")
    with (
        pytest.raises(DimeeError, match=r"a program that forks failed: .*bundle"),
        FAULTS["fork"].hold(FaultInjector(LoadTarget("", "")), "mobile", None),
    ):
        pass
