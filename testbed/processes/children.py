"""Child processes that end when this process ends, also when it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

STOP_S = 10.0
"""Time after its signal at which a process that still runs is killed."""
TOTAL_STOP_S = 20.0
"""The same for several processes that are stopped one after the other."""


def start_child(command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Start ``python COMMAND …``, where the command is ``-m MODULE …`` or ``SCRIPT …``.

    The child is in a session of its own, so that Ctrl-C reaches this process only. It ends when
    this process ends. ``options`` are those of `subprocess.Popen`.
    """
    return _start("testbed.processes.child", command, options)


@contextmanager
def watched(group: int) -> Iterator[None]:
    """End a process group if this process ends during the block.

    For programs that cannot run as `start_child`, such as those of another Python. ``group`` is the
    id of a process that was started with ``start_new_session=True``.
    """
    watcher = _start(
        "testbed.processes.watcher",
        [str(group)],
        {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL},
    )
    try:
        yield
    finally:
        watcher.kill()
        watcher.wait()


def run_watched(
    command: Sequence[str], text: str = "", **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end with ``text`` as its input, and return its status and output.

    If this process ends before, in any way, the program and the processes that it started end too.
    ``options`` are those of `subprocess.Popen`.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    ) as process:
        try:
            with watched(process.pid):
                out, errors = process.communicate(text)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


def _start(module: str, arguments: Sequence[str], options: dict[str, Any]) -> subprocess.Popen[Any]:
    pipe, _ = _pipe()
    return subprocess.Popen(
        [sys.executable, "-m", module, str(pipe), *arguments],
        pass_fds=[pipe],
        start_new_session=True,
        **options,
    )


@cache
def _pipe() -> tuple[int, int]:
    """Return the pipe whose writing end this process alone holds, until it ends."""
    ends = os.pipe()

    def close_in_fork() -> None:
        for end in ends:
            with suppress(OSError):
                os.close(end)
        _pipe.cache_clear()

    os.register_at_fork(after_in_child=close_in_fork)
    return ends


def stop_all(
    processes: Iterable[subprocess.Popen[Any]],
    number: signal.Signals = signal.SIGTERM,
    each_s: float = STOP_S,
    total_s: float = TOTAL_STOP_S,
) -> None:
    """Send a signal to one process after the other, and wait for each before the next.

    A process that has not ended after ``each_s`` is killed, as are all after ``total_s``, or when
    an exception ends the wait: a second Ctrl-C, for example.
    """
    running = [process for process in processes if process.poll() is None]
    until = time.monotonic() + total_s
    try:
        for process in running:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)  # a paused process handles no other signal
            try:
                process.wait(max(0.0, min(each_s, until - time.monotonic())))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()
