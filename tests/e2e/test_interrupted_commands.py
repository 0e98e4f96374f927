"""The commands that start others, ended by each signal: nothing is left, and no stack trace."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from testbed.load.cli import WARM_UP
from testbed.load.target import find_testbed
from testbed.processes.temporary import MIN_AGE_S, remove_abandoned
from tests.support.commands import port_options
from tests.support.paths import BUNDLE
from tests.support.started import WAIT_S, started

DIMEE = ("-m", "shared.command")
INTERRUPTED_IMPORT = """
import os, signal, sys
from importlib.abc import MetaPathFinder
module, number = sys.argv[1], signal.Signals[sys.argv[2]]

class Interrupting(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == module:
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), number)
            except BaseException as error:  # as in an extension module that is loading
                if module == "pydantic_core._pydantic_core":
                    raise RuntimeError("the module did not load") from error
                raise
        return None

sys.meta_path.insert(0, Interrupting())
sys.argv[:3] = ["dimee"]
from shared.command import main
main()
"""


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("shared.signals", "SIGINT"),
        ("mobile_client", "SIGINT"),
        ("click", "SIGTERM"),
        ("pydantic", "SIGINT"),
        ("pydantic_core._pydantic_core", "SIGINT"),
        ("testbed.up", "SIGHUP"),
        ("testbed.processes.children", "SIGINT"),
    ],
)
def test_signal_during_an_import_prints_no_stack_trace(
    module: str, name: str, tmp_path: Path
) -> None:
    arguments = [module, name, "up", *port_options(), "--state-dir", str(tmp_path / "state")]
    with started(tmp_path / "tmp", "-c", INTERRUPTED_IMPORT, *arguments) as command:
        status, printed = command.rest()
        assert status == 128 + signal.Signals[name]
        assert printed.replace("starting ledger, cloud, edge and mobile …\n", "") == ""
        assert command.left_behind() == []


def test_interrupted_start_of_up_ends_what_has_started(tmp_path: Path) -> None:
    arguments = ["up", *port_options(), "--bundle", str(BUNDLE)]
    with started(
        tmp_path / "tmp", *DIMEE, *arguments, "--state-dir", str(tmp_path / "state")
    ) as command:
        command.wait_for_children(2)
        command.process.send_signal(signal.SIGINT)
        assert command.rest() == (130, "starting ledger, cloud, edge and mobile …\n")
        assert command.left_behind() == []


def test_closed_terminal_stops_a_running_up(tmp_path: Path) -> None:
    options = port_options()
    state = tmp_path / "state"
    arguments = ["up", *options, "--bundle", str(BUNDLE), "--link", "mobile-edge=lan"]
    with started(
        tmp_path / "tmp", *DIMEE, *arguments, "--allow-unverified", "--state-dir", str(state)
    ) as command:
        command.printed_until("Ctrl-C stops them all")
        command.process.send_signal(signal.SIGHUP)
        assert command.rest() == (0, "stopping …\nstopped.\n")
        assert command.left_behind(frozenset(map(int, options[1::2]))) == []
        assert not (state / "testbed.json").exists()


def test_terminated_demo_leaves_nothing(tmp_path: Path) -> None:
    options = port_options()
    with started(tmp_path / "tmp", *DIMEE, "demo", *options) as command:
        command.printed_until("answer")  # the header of the rows: requests are being sent
        command.process.terminate()
        status, printed = command.rest()
        assert status == 128 + signal.SIGTERM
        assert "Traceback" not in printed
        assert command.left_behind(frozenset(map(int, options[1::2]))) == []


def wait_for_requests(scratch: Path, count: int) -> None:
    """Wait until the ledger of the testbed in ``scratch`` has ``count`` requests."""
    [folder] = scratch.glob("dimee-load-*")
    ledger = LedgerClient(find_testbed(folder).ledger_url)
    try:
        assert wait_for_consistent(ledger, WAIT_S, count).requests >= count
    finally:
        ledger.close()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_interrupted_load_writes_a_partial_report(name: str, tmp_path: Path) -> None:
    out = tmp_path / "load"
    with started(
        tmp_path / "tmp", *DIMEE, "load", "--duration", "600", "--out", str(out)
    ) as command:
        command.printed_until("sending ")
        wait_for_requests(command.scratch, WARM_UP + 5)
        command.process.send_signal(signal.Signals[name])
        status, printed = command.rest()
        assert status == 128 + signal.Signals[name]
        assert "Traceback" not in printed
        assert command.left_behind() == []
    report = json.loads(out.with_suffix(".json").read_text())
    assert report["partial"]["signal"] == name
    assert report["duration_s"] == pytest.approx(report["partial"]["after_s"], abs=0.06)
    assert 0 < report["requests"] < report["partial"]["planned"]
    assert report["endings"] == {"answered": report["requests"]}
    assert report["ledger"]["consistent"]
    sentence = f"partial report: {name} ended the run after"
    assert sentence in printed
    assert sentence in out.with_suffix(".html").read_text()


def test_killed_load_takes_its_testbed_with_it(tmp_path: Path) -> None:
    with started(tmp_path / "tmp", *DIMEE, "load", "--out", str(tmp_path / "load")) as command:
        command.printed_until("sending ")
        command.process.kill()
        command.rest()
        left = command.left_behind()
        assert all(line.startswith("a file is left:") for line in left), left
        [folder] = command.scratch.glob("dimee-*")
        later = folder.stat().st_mtime + MIN_AGE_S + 60
        assert remove_abandoned(command.scratch, later) == [folder]
