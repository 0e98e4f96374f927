"""Processes that a command starts end with it, however it ends."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed.chaos.leftovers import processes_of
from testbed.processes.children import stop_all
from testbed.processes.temporary import LOCK, MIN_AGE_S, remove_abandoned, temporary_folder
from tests.support.paths import free_ports
from tests.support.started import started

PROGRAM = """
import os, signal, sys
from shared.signals import raise_on_signals
from testbed.links.hops import Hop
from testbed.processes.processes import Testbed
from testbed.processes.temporary import temporary_folder
raise_on_signals()
*ports, end = sys.argv[1:]
hops = [Hop(f"{i}", "lan", int(ports[2 * i]), int(ports[2 * i + 1])) for i in range(2)]
with (
    temporary_folder("test") as folder,
    Testbed([hop.role(9) for hop in hops], folder, {}) as testbed,
):
    testbed.start_all()
    print("ready", flush=True)
    sys.stdin.readline()
    if end == "crash":
        raise RuntimeError("a crash")
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("told to stop", flush=True))
print("started", flush=True)
while True:
    time.sleep(60)
"""
STOPS_A_STUBBORN_ONE = """
import subprocess, sys
from shared.signals import raise_on_signals
from testbed.processes.children import start_child, stop_all
raise_on_signals()
child = start_child(["-m", "stubborn"], stdout=subprocess.PIPE, text=True)
print(child.stdout.readline(), flush=True)
try:
    sys.stdin.readline()
finally:
    child.send_signal(15)
    print(child.stdout.readline(), flush=True)
    stop_all([child], each_s=600, total_s=600)
"""
STARTS_ANOTHER = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import signal; signal.pause()"])
"""
RUNS_ANOTHER_PROGRAM = f"""
import sys
from shared.signals import raise_on_signals
from testbed.processes.children import run_watched
raise_on_signals()
run_watched([sys.executable, "-c", {STARTS_ANOTHER!r}])
"""


def two_relays(ports: list[int], end: str = "") -> tuple[str, ...]:
    return ("-c", PROGRAM, *map(str, ports), end)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_every_process_and_frees_ports_and_files(
    number: signal.Signals, tmp_path: Path
) -> None:
    ports = free_ports(4)
    with started(tmp_path / "tmp", *two_relays(ports)) as command:
        command.printed_until("ready")
        command.process.send_signal(number)
        status, printed = command.rest()
        assert (status, printed) == (128 + number, "")
        assert command.left_behind(frozenset(ports)) == []


def test_crash_ends_every_process(tmp_path: Path) -> None:
    ports = free_ports(4)
    with started(tmp_path / "tmp", *two_relays(ports, "crash")) as command:
        command.printed_until("ready")
        command.process.communicate("go\n", timeout=60)
        assert command.process.returncode == 1
        assert command.left_behind(frozenset(ports)) == []


def test_killed_parent_ends_every_process_and_the_next_command_removes_its_files(
    tmp_path: Path,
) -> None:
    ports = free_ports(4)
    with started(tmp_path / "tmp", *two_relays(ports)) as command:
        command.printed_until("ready")
        command.process.kill()
        assert command.rest()[0] == -signal.SIGKILL
        left = command.left_behind(frozenset(ports))
        assert all(line.startswith("a file is left:") for line in left), left
        [folder] = command.scratch.iterdir()
        later = time.time() + MIN_AGE_S + 1
        assert remove_abandoned(command.scratch, later) == [folder]
        assert list(command.scratch.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the signal at a parent's end is Linux'")
def test_stopped_child_ends_with_a_killed_parent(tmp_path: Path) -> None:
    ports = free_ports(4)
    with started(tmp_path / "tmp", *two_relays(ports)) as command:
        command.printed_until("ready")
        for process in processes_of(command.scratch):
            if process.pid != command.process.pid:
                process.suspend()
        command.process.kill()
        command.rest()
        left = command.left_behind(frozenset(ports))
        assert all(line.startswith("a file is left:") for line in left), left


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_program_that_a_command_waits_for_ends_with_it(
    number: signal.Signals, tmp_path: Path
) -> None:
    """As ``pip`` and the lab's programs do under ``dimee bench``, with what they started."""
    with started(tmp_path / "tmp", "-c", RUNS_ANOTHER_PROGRAM) as command:
        command.wait_for_children(3)  # the program, its own child, and their watcher
        command.process.send_signal(number)
        command.rest()
        assert command.left_behind() == []


def test_ignored_hangup_stays_ignored(tmp_path: Path) -> None:
    """As with ``nohup``."""
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    ports = map(str, free_ports(4))
    with started(tmp_path / "tmp", "-c", ignore + PROGRAM, *ports, "") as command:
        command.printed_until("ready")
        command.process.send_signal(signal.SIGHUP)
        command.process.communicate("go\n", timeout=60)
        assert command.process.returncode == 0


def test_second_signal_kills_what_does_not_stop(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    path = f"{os.environ.get('PYTHONPATH', '')}:{tmp_path}:{Path(__file__).parents[2]}"
    with started(tmp_path / "tmp", "-c", STOPS_A_STUBBORN_ONE, PYTHONPATH=path) as command:
        command.printed_until("started")
        command.process.terminate()
        command.printed_until("told to stop")
        command.process.terminate()
        status, _ = command.rest()
        assert status == 128 + signal.SIGTERM
        assert command.left_behind() == []


def test_process_that_ignores_the_signal_is_killed_after_a_bound() -> None:
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    stop_all([process], each_s=0.2)
    assert process.returncode == -signal.SIGKILL
    process.communicate()


def test_paused_process_is_stopped() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process.send_signal(signal.SIGSTOP)
    stop_all([process], each_s=60)
    assert process.returncode == -signal.SIGTERM
    process.communicate()


def test_folder_in_use_is_not_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    later = time.time() + MIN_AGE_S + 1
    with temporary_folder("test") as folder:
        (folder / "file").touch()
        assert remove_abandoned(tmp_path, later) == []
    assert not folder.exists()
    other = tmp_path / "dimee-other-1"
    other.mkdir()
    (other / LOCK).touch()
    assert remove_abandoned(tmp_path) == [], "it is too young"
    assert remove_abandoned(tmp_path, later) == [other]


def test_folder_is_removed_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(fcntl, "flock", unsupported)
    with temporary_folder("test") as folder:
        assert remove_abandoned(tmp_path, time.time() + MIN_AGE_S + 1) == []
    assert not folder.exists()
