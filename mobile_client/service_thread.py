"""The thread in which a `MobileClient` runs its `MobileService`, and the bounds of its calls."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import logging
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from mobile_client.service import MobileService
from shared.errors import ClientUnusable, DeadlineExceeded, DimeeError, PolicyFailed
from shared.process_bound import ProcessBound

log = logging.getLogger(__name__)

T = TypeVar("T")

FLUSH_S = 2.0
"""Default time in seconds for waiting audits and for deliveries when a client closes."""
CLOSE_S = 5.0
"""Longest time in seconds that closing waits, beyond the time for audits and deliveries."""
BLOCKED_S = 10.0
"""Time in seconds for which the event loop may be busy after the deadline of a call, before the
call ends; one large call keeps it busy for a few seconds."""
CLOSED = "the client is closed; create a new one"


class ServiceThread(ProcessBound):
    """Event loop of a `MobileService` in a daemon thread of its own.

    Calls of any thread and event loop are `submit`-ted and awaited with `wait` or `wait_async`.
    They end with `ClientUnusable` when the thread ends, and with `DeadlineExceeded` if a policy
    blocks the loop. The thread itself closes the service, so that `close` can be called anywhere:
    in any thread, in a callback of the loop, more than once and at the end of the program.
    """

    def __init__(self, service: MobileService) -> None:
        self._service = service
        self._lock = threading.RLock()
        self._unusable: str | None = None
        self._flush_s = FLUSH_S
        self._calls: set[Future[Any]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended: Future[None] = Future()
        self._ended.set_running_or_notify_cancel()  # so that no waiting caller can cancel it
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="mobile", daemon=True)
        self._thread.start()
        self.bind_to_process()
        atexit.register(self._close_at_exit)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a call and return its future; raise `ClientUnusable` if that is impossible."""
        call: Future[T] = Future()
        try:
            self._service.check_process()
            with self._lock:
                self._check_usable()
                self._calls.add(call)
                self._loop.call_soon_threadsafe(self._begin, work, call)
        except BaseException:
            work.close()
            raise
        call.add_done_callback(self._calls.discard)
        return call

    def wait(self, call: Future[T], deadline_s: float) -> T:
        """Return the result of a call of another thread; ``deadline_s`` is that of its requests."""
        try:
            if threading.current_thread() is self._thread:
                raise ClientUnusable(
                    "this call would wait for itself, because the client's own thread makes it, "
                    "such as in a method of a policy"
                )
            while not _is_done(call, deadline_s):
                if not _is_done(self._ping(), BLOCKED_S):
                    raise self._blocked(deadline_s)
            return call.result()
        finally:
            call.cancel()  # of a call that is interrupted, such as by Ctrl-C

    async def wait_async(self, call: Future[T], deadline_s: float) -> T:
        """Return what `wait` returns, awaited from an event loop of the caller."""
        waiting = asyncio.wrap_future(call)
        try:
            while not await _is_done_async(waiting, deadline_s):
                if not await _is_done_async(asyncio.wrap_future(self._ping()), BLOCKED_S):
                    raise self._blocked(deadline_s)
            return waiting.result()
        finally:
            waiting.cancel()

    def begin_close(self, flush_s: float) -> None:
        """Refuse further calls, and end those that run; does not wait. Repeated calls do nothing.

        Does nothing in a forked child: the client is its parent's.
        """
        if self.is_foreign:
            return
        with self._lock:
            if self._unusable is None:
                self._unusable, self._flush_s = CLOSED, flush_s
                self._loop.call_soon_threadsafe(self._stopping.set)

    def close(self, flush_s: float) -> None:
        """Close the service, with ``flush_s`` seconds each for audits and deliveries.

        Waits at most `CLOSE_S` longer than that. In the client's own thread it does not wait.
        """
        self.begin_close(flush_s)
        if threading.current_thread() is self._thread or self.is_foreign:
            return
        if not _is_done(self._ended, self._closing_s()):
            self._give_up()

    async def aclose(self, flush_s: float) -> None:
        """Do what `close` does, without blocking the caller's event loop."""
        self.begin_close(flush_s)
        if self.is_foreign:
            return
        if not await _is_done_async(asyncio.wrap_future(self._ended), self._closing_s()):
            self._give_up()

    def _closing_s(self) -> float:
        return 2 * self._flush_s + CLOSE_S

    def _check_usable(self) -> None:
        if self._unusable is not None:
            raise ClientUnusable(self._unusable)

    def _run(self) -> None:
        problem: BaseException | None = None
        try:
            self._loop.run_until_complete(self._stopping.wait())
        except BaseException as error:  # KeyboardInterrupt or SystemExit of a task
            problem = error
        with self._lock:
            if self._unusable is None:
                name = type(problem).__name__
                self._unusable = f"the client's thread ended with {name}; create a new client"
                log.error("%s", self._unusable)
        try:
            self._loop.run_until_complete(self._stop())
            self._service.release(self._flush_s)
        except BaseException:
            log.exception("the client could not be closed completely")
        finally:
            self._end_calls()
            self._loop.close()
            atexit.unregister(self._close_at_exit)
            self._ended.set_result(None)

    async def _stop(self) -> None:
        await asyncio.sleep(0)  # calls that were submitted before reach their first await
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_S / 2)
        await self._service.stop(self._flush_s)

    def _begin(self, work: Coroutine[Any, Any, T], call: Future[T]) -> None:
        if call.done():
            work.close()
            return
        task = self._loop.create_task(self._outcome(work))
        self._tasks.add(task)
        task.add_done_callback(partial(self._finish, call))
        call.add_done_callback(partial(self._cancel, task))

    async def _outcome(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return await work
        except asyncio.CancelledError:
            self._check_usable()
            raise
        except (KeyboardInterrupt, SystemExit) as error:
            # raised any further, it would end the event loop
            name = type(error).__name__
            raise PolicyFailed(f"policy: raised {name}", field="policy") from error

    def _finish(self, call: Future[T], task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # by the caller, whose future has ended, or by code in the loop
            error: BaseException | None = ClientUnusable(
                "the call was cancelled in the client's event loop, such as by a policy; repeat it"
            )
        else:
            error = task.exception()
        with suppress(InvalidStateError):  # its caller no longer waits
            if error is None:
                call.set_result(task.result())
            else:
                call.set_exception(error)

    def _cancel(self, task: asyncio.Task[Any], call: Future[Any]) -> None:
        if not call.cancelled():
            return
        with self._lock:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(task.cancel)

    def _ping(self) -> Future[None]:
        """Return a future that ends when the event loop runs, or when the client closes."""
        pong: Future[None] = Future()
        with self._lock:
            if self._unusable is None:
                self._loop.call_soon_threadsafe(_set, pong)
            else:
                _set(pong)
        return pong

    def _blocked(self, deadline_s: float) -> DimeeError:
        return DeadlineExceeded(
            f"the client's event loop is blocked since {deadline_s + BLOCKED_S:.0f} s, such as by "
            "a method of a policy, which must return at once"
        )

    def _end_calls(self) -> None:
        for call in list(self._calls):
            with suppress(InvalidStateError):
                call.set_exception(ClientUnusable(self._unusable or CLOSED))

    def _give_up(self) -> None:
        """End the calls of a client whose thread is blocked."""
        if not self._ended.done():
            log.error(
                "the client could not be closed within %.0f s, because its thread is blocked, "
                "such as by a policy; its files stay open until the process ends",
                self._closing_s(),
            )
            self._end_calls()

    def _close_at_exit(self) -> None:
        self.close(FLUSH_S)


def _is_done(future: Future[Any], timeout_s: float) -> bool:
    return bool(concurrent.futures.wait((future,), timeout_s).done)


async def _is_done_async(future: asyncio.Future[Any], timeout_s: float) -> bool:
    return bool((await asyncio.wait((future,), timeout=timeout_s))[0])


def _set(future: Future[None]) -> None:
    with suppress(InvalidStateError):
        future.set_result(None)
