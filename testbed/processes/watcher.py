"""Watcher of a program that does not watch its parent: ``python -m testbed.processes.watcher``.

The arguments are the pipe FD, as for `testbed.processes.child`, and the process group to end.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress

from testbed.processes.child import GRACE_S


def main() -> None:
    """Wait for the end of the parent, then end the process group."""
    pipe, group = map(int, sys.argv[1:])
    os.read(pipe, 1)
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        time.sleep(GRACE_S)
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
