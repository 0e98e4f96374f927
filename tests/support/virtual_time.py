"""An event loop whose time passes by sleeping only, so that no verdict depends on speed."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
START_S = 1_000.0
READING_S = 1e-6
"""Time passes by this much whenever it is read, so that no duration is exactly zero."""


class VirtualClock:
    """Seconds that pass when `advance` is called, and a little at each reading."""

    def __init__(self) -> None:
        self._now = START_S

    def __call__(self) -> float:
        self._now += READING_S
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds


class _Selector(selectors.DefaultSelector):
    """Lets virtual time pass in place of waiting, unless work runs in another thread."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self.busy_threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if self.busy_threads:
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self._clock.advance(timeout)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Runs sleeps and timeouts at once; work in threads takes no virtual time."""

    def __init__(self, clock: VirtualClock) -> None:
        self._virtual = clock
        self._counting = _Selector(clock)
        super().__init__(self._counting)

    def time(self) -> float:
        return self._virtual()

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        self._counting.busy_threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: object) -> None:
        self._counting.busy_threads -= 1


def run_in_virtual_time(work: Callable[[VirtualClock], Coroutine[Any, Any, T]]) -> T:
    """Run ``work``, which gets the clock of its loop."""
    clock = VirtualClock()
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(clock)) as runner:
        return runner.run(work(clock))
