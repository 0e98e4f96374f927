"""Two testbeds cannot use one state folder."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import DimeeError
from testbed.processes.processes import Testbed
from testbed.processes.state_lock import LOCK_FILE, locked_state

HOLD = """
import sys
from pathlib import Path
from testbed.processes.state_lock import locked_state
with locked_state(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_second_testbed_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with (
        Testbed([], tmp_path, {}),
        pytest.raises(DimeeError, match=r"another testbed runs in .*--state-dir"),
        Testbed([], tmp_path, {}),
    ):
        pass
    with Testbed([], tmp_path, {}):
        pass


def test_lock_ends_with_its_process(tmp_path: Path, repository: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=repository,
    ) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with (
            pytest.raises(DimeeError, match=rf"\(process {holder.pid}\)"),
            locked_state(tmp_path),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
    assert (tmp_path / LOCK_FILE).exists(), "the file stays, its lock does not"
    with locked_state(tmp_path):
        pass


def test_second_up_ends_with_a_sentence(tmp_path: Path, repository: Path) -> None:
    with locked_state(tmp_path):
        command = [sys.executable, "-m", "shared.command", "up", "--state-dir", str(tmp_path)]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=repository, timeout=60)
    assert ended.returncode != 0
    (line,) = ended.stderr.strip().splitlines()
    assert "another testbed runs in" in line


def test_folder_that_cannot_hold_the_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DimeeError, match=r"cannot hold a testbed.*--state-dir"),
        locked_state(tmp_path / "file"),
    ):
        pass
