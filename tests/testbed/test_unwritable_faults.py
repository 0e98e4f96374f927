"""The chaos faults disk-full and read-only, on a process that writes an outbox."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from testbed.chaos.fault_injector import FaultInjector
from testbed.chaos.faults import FAULTS
from testbed.chaos.faults.fault_kind import FaultNotPossible
from testbed.load.target import LoadTarget

RECORDS = """
import sys
from pathlib import Path
from shared.errors import NotReady
from shared.ledger.outbox import Outbox
from tests.support.entries import caller
outbox, number = Outbox.claim(Path(sys.argv[1]), "mobile"), 0
for line in sys.stdin:
    outbox.maintain()
    try:
        for _ in range(200):
            outbox.record(caller(f"a{number}"))
            number += 1
        print("recorded", flush=True)
    except NotReady:
        print("refused", flush=True)
"""


@pytest.fixture
def recorder(tmp_path: Path, repository: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", RECORDS, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=repository,
    ) as process:  # fmt: skip
        yield process
        assert process.stdin is not None
        process.stdin.close()


def attempt(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("again\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@pytest.mark.parametrize("kind", ["disk-full", "read-only"])
def test_role_cannot_write_until_the_end_of_the_fault(
    kind: str, recorder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ready: list[str] = []
    monkeypatch.setattr(FaultInjector, "pid", lambda self, role: recorder.pid)
    monkeypatch.setattr(FaultInjector, "wait_ready", lambda self, role: ready.append(role))
    assert attempt(recorder) == "recorded"
    with FAULTS[kind].hold(FaultInjector(LoadTarget("", "")), "mobile", None):
        assert attempt(recorder) == "refused"
    assert ready == ["mobile"]
    assert attempt(recorder) == "recorded"


def test_of_two_faults_at_once_the_last_one_to_end_lets_the_role_write(
    recorder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FaultInjector, "pid", lambda self, role: recorder.pid)
    monkeypatch.setattr(FaultInjector, "wait_ready", lambda self, role: None)
    injector = FaultInjector(LoadTarget("", ""))
    assert attempt(recorder) == "recorded"
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(FAULTS["read-only"].hold(injector, "mobile", None))
        second.enter_context(FAULTS["read-only"].hold(injector, "mobile", None))
        first.close()
        assert attempt(recorder) == "refused"
    assert attempt(recorder) == "recorded"


def test_process_that_has_ended_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    monkeypatch.setattr(FaultInjector, "pid", lambda self, role: ended.pid)
    with (
        pytest.raises(FaultNotPossible, match="has just ended"),
        FAULTS["read-only"].hold(FaultInjector(LoadTarget("", "")), "edge", None),
    ):
        pass
