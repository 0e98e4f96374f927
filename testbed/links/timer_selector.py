"""Selector for an event loop with timers finer than 1 ms and thousands of connections; Linux only.

The time-out of epoll is in whole milliseconds, and select handles 1,024 descriptors. A timer
descriptor (``timerfd_create(2)``) in the epoll set is exact, and ends the wait as any other event.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import time
from typing import Any

_TFD_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class TimerSelector(selectors.EpollSelector):
    """`selectors.EpollSelector` whose time-out is exact to some ten microseconds."""

    def __init__(self) -> None:
        super().__init__()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = self._libc.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK_CLOEXEC)
        if self._timer < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self.register(self._timer, selectors.EVENT_READ)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events for up to ``timeout`` seconds; None waits without end."""
        if timeout is not None and timeout > 0:
            self._set(timeout)
            timeout = None
        ready: list[tuple[selectors.SelectorKey, int]] = []
        for key, events in super().select(timeout):
            if key.fd == self._timer:
                self._set(0.0)  # it is not readable any more
            else:
                ready.append((key, events))
        return ready

    def _set(self, seconds: float) -> None:
        """Let the timer expire after so many seconds; 0 stops it."""
        whole, part = divmod(max(0, round(seconds * 1e9)), 1_000_000_000)
        value: Any = _TimerSpec(_TimeSpec(0, 0), _TimeSpec(whole, part))
        self._libc.timerfd_settime(self._timer, 0, ctypes.byref(value), None)

    def close(self) -> None:
        """Close the timer and the epoll set."""
        super().close()
        os.close(self._timer)
