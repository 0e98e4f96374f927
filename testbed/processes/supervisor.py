"""Supervision of a running testbed, and writing of the file by which other commands find it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.errors import DimeeError
from shared.testbed_file import TESTBED_FILE
from testbed.processes.processes import Testbed

POLL_S = 0.2


def write_testbed_file(folder: Path, facts: dict[str, Any]) -> None:
    """Write addresses, process ids and links of a testbed that is ready, in one atomic step."""
    part = folder / f"{TESTBED_FILE}.new"
    part.write_text(json.dumps(facts | {"pid": os.getpid()}, indent=2), encoding="utf-8")
    part.replace(folder / TESTBED_FILE)


def supervise(
    testbed: Testbed,
    stop: threading.Event,
    restart_after_s: float | None,
    report: Callable[[str], None],
    on_restart: Callable[[], None],
) -> None:
    """Watch the processes until ``stop`` is set.

    A process that ends by itself is started again after ``restart_after_s``; None raises
    `DimeeError` instead. ``on_restart`` is called after each start, ``report`` with each event.
    """
    ended_at: dict[str, float] = {}
    while not stop.wait(POLL_S):
        for name, process in list(testbed.processes.items()):
            if process.poll() is None:
                continue
            if restart_after_s is None:
                raise DimeeError(f"the {name} ended by itself; see {testbed.log(name)}")
            now = time.monotonic()
            if name not in ended_at:
                ended_at[name] = now
                report(f"the {name} ended; restarting it in {restart_after_s:g} s")
            elif now - ended_at[name] >= restart_after_s:
                del ended_at[name]
                testbed.start(name)
                report(f"the {name} was restarted")
                on_restart()
