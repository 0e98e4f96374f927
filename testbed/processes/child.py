"""Child process that ends when its parent has ended: ``python -m testbed.processes.child FD …``.

The parent holds the other end of the pipe FD. However it ends, also by SIGKILL, the system closes
that end. This works on every POSIX system. Linux also continues a child that is stopped (SIGSTOP)
when its parent ends, since it could not end itself otherwise. A server that is started in another
way, for example as process 1 of a container or with ``nohup``, does not watch its parent.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1
"""Option of Linux' prctl: the signal that a process gets when its parent has ended."""
GRACE_S = 20.0
"""Time from the SIGTERM that the child then sends to itself until the SIGKILL."""


def end_with_parent(pipe: int) -> None:
    """Start a thread that waits for the end of the parent, and then ends this process."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)

    def watch() -> None:
        os.read(pipe, 1)  # no process writes; it returns when the other end is closed
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="watch parent", daemon=True).start()


def main() -> None:
    """Run ``-m MODULE …`` or ``SCRIPT …`` as ``python`` does, and watch the parent meanwhile."""
    end_with_parent(int(sys.argv[1]))
    if sys.argv[2] == "-m":
        sys.argv = sys.argv[3:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = sys.argv[2:]
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
