"""Start a command that starts others, and wait for everything that it leaves behind to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.chaos.leftovers import Footprint, processes_of
from tests.support.paths import REPOSITORY

WAIT_S = 60.0


class Started:
    """A running command; every process of it has ``TMPDIR`` set to ``scratch``."""

    def __init__(self, process: subprocess.Popen[str], scratch: Path) -> None:
        self.process = process
        self.scratch = scratch

    def printed_until(self, text: str) -> str:
        """Read the output up to the line that contains ``text``, and return it."""
        assert self.process.stdout is not None
        printed = ""
        for line in self.process.stdout:
            printed += line
            if text in line:
                return printed
        raise AssertionError(f"it ended without {text!r}:\n{printed}")

    def wait_for_children(self, count: int) -> None:
        """Wait until ``count`` other processes of the command run."""
        until = time.monotonic() + WAIT_S
        while len(list(processes_of(self.scratch))) <= count:
            assert time.monotonic() < until
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def rest(self) -> tuple[int, str]:
        """Wait for the end; return the exit status and the rest of the output."""
        printed, _ = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, printed

    def left_behind(self, ports: frozenset[int] = frozenset()) -> list[str]:
        """Return a sentence for each process, port and file that is left."""
        footprint = Footprint(self.scratch / "none", self.scratch, 0, ports)
        return footprint.left_behind(time.time(), WAIT_S)


def _heed_signals() -> None:
    """Undo what a background job inherits: it ignores Ctrl-C, and with ``nohup`` SIGHUP."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def started(scratch: Path, *command: str, **settings: str) -> Iterator[Started]:
    """Start ``python COMMAND …`` with its temporary files in ``scratch``; kill it at the end."""
    scratch.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, *command],
        env=os.environ
        | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
        | settings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=_heed_signals,
    )
    one = Started(process, scratch)
    try:
        yield one
    finally:
        for left in processes_of(scratch):
            left.kill()
        process.communicate()
