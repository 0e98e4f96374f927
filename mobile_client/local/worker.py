"""Executor with one daemon thread, for work that may be stuck when the program ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_Job = tuple[Future[Any], Callable[[], Any]]


class Worker(Executor):
    """Runs functions one after the other in a daemon thread, which the first of them starts.

    Unlike `concurrent.futures.ThreadPoolExecutor`, it accepts work after the main thread has ended,
    and the end of the program does not wait for it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Functions that wait for the one that runs."""
        return self._jobs.qsize()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Queue ``fn`` and return the future of its result; raise `RuntimeError` once closed."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the worker {self._name} is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._jobs.put((future, lambda: fn(*args, **kwargs)))
        return future

    def close(self, timeout_s: float) -> bool:
        """Drop queued work; return whether the running work ended within ``timeout_s``."""
        with self._lock:
            self._closed = True
            while not self._jobs.empty():
                job = self._jobs.get()
                if job is not None:
                    job[0].cancel()
            self._jobs.put(None)
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:  # the waiting call raises it
                future.set_exception(error)
            else:
                future.set_result(result)
            del job, future, work  # so that an idle worker keeps no text
