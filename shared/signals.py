"""Signals that end a command: Ctrl-C (SIGINT), SIGTERM, and SIGHUP of a closed terminal.

They raise `EndedBySignal` in the main thread, so that every ``with`` block and ``finally`` clause
is left in order, whichever signal it was.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class EndedBySignal(SystemExit):
    """A signal told the process to end; its exit status is 128 and the number of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


def raise_on_signals() -> None:
    """Make each of `SIGNALS` raise `EndedBySignal`. To be called in the main thread.

    ``nohup`` ignores SIGHUP, which then stays so. Forked processes, such as those of a process
    pool, end by the signal itself.
    """
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            raise EndedBySignal(number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in _heeded():
        signal.signal(number, end)


def _heeded() -> list[signal.Signals]:
    ignores = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in SIGNALS if not (ignores and number == signal.SIGHUP)]


@contextmanager
def set_on_signals() -> Iterator[threading.Event]:
    """Yield an event that each of `SIGNALS` sets during the block, instead of ending the process.

    As with `raise_on_signals`, an ignored SIGHUP stays ignored. To be used in the main thread.
    """
    event = threading.Event()
    with _handled_by(lambda *_: event.set()):
        yield event


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let each of `SIGNALS` end the process at once during the block, with its exit status.

    For imports: an exception that is raised while an extension module in C or Rust loads becomes
    another one, with a stack trace. The block may start nothing that has to be ended. In another
    thread than the main one, which receives no signals, it changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handled_by(lambda number, _: os._exit(128 + number)):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in _heeded()}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, handler_before in before.items():
            signal.signal(number, handler_before)
