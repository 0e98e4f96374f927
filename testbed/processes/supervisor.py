"""A testbed that stands: the file by which others find it, and what if a process ends."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.errors import DimeeError
from testbed.processes.processes import Testbed

TESTBED_FILE = "testbed.json"
POLL_S = 0.2


def write_testbed_file(folder: Path, facts: dict[str, Any]) -> None:
    """Addresses, process ids and links of a testbed that is ready; whole or not at all."""
    written = folder / f"{TESTBED_FILE}.new"
    written.write_text(json.dumps(facts | {"pid": os.getpid()}, indent=2), encoding="utf-8")
    written.replace(folder / TESTBED_FILE)


def read_testbed_file(folder: Path) -> dict[str, Any]:
    """The facts of the testbed that stands there; raises `DimeeError` where none does."""
    try:
        facts = json.loads((folder / TESTBED_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DimeeError(
            f"no testbed stands at {folder}; start one with: dimee up --link mobile-edge=4g, "
            "or say where it is with --state-dir"
        ) from None
    return dict(facts)


def stand(
    testbed: Testbed,
    stop: threading.Event,
    restart_after_s: float | None,
    say: Callable[[str], None],
    changed: Callable[[], None],
) -> None:
    """Return when told to ``stop``.

    A process that ended by itself is started again after ``restart_after_s``; None: `DimeeError`.
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
                say(f"the {name} ended; it comes back in {restart_after_s:g} s")
            elif now - ended_at[name] >= restart_after_s:
                del ended_at[name]
                testbed.start(name)
                say(f"the {name} is started again")
                changed()
