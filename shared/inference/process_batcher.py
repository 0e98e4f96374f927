"""A `LayerBatcher` in a process of its own, whose layers never wait for the server's interpreter.

A batch takes the interpreter between any two layers. In the server's process it would wait there
for the event loop and the other workers, and they for it.
"""

from __future__ import annotations

import logging
import select
import socket
import subprocess
import sys
import time
from collections.abc import Sequence, Set
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from shared.bundle.loading import Bundle
from shared.domain import LayerRange, Prediction
from shared.errors import BundleError, DimeeError, NotReady
from shared.inference.batcher_messages import Admit, Done, Drop, Start, Started, State
from shared.inference.layer_batcher import MAX_ROWS, MAX_TOKENS, MIN_FILL, Row

log = logging.getLogger(__name__)
START_S = 60.0
PAUSE_S = 1.0
"""Between two tries to start a process that did not come up."""


def start_processes(bundle: Bundle, layers: LayerRange, count: int) -> list[ProcessBatcher]:
    """``count`` processes with their layers loaded; raises `BundleError`, and leaves none then."""
    flows: list[ProcessBatcher] = []
    try:
        for _ in range(count):
            flows.append(ProcessBatcher(bundle.path, layers))
        for flow in flows:
            flow.await_ready()
    except BaseException:
        for flow in flows:
            flow.close()
        raise
    return flows


class ProcessBatcher:
    """What `LayerBatcher` is to one thread, in a process; used from one thread.

    It says some layers before when it will be idle, so that it need not be. A process that ends
    (killed, out of memory) is started again, and what it had under way fails with `NotReady`:
    another tier may be asked.
    """

    def __init__(
        self,
        bundle: Path,
        layers: LayerRange,
        max_rows: int = MAX_ROWS,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self.max_rows = max_rows
        self.max_tokens = max_tokens
        self._start = Start(str(bundle.absolute()), layers, max_rows, max_tokens)
        self._rows: dict[int, Row] = {}
        self._number = 0
        self._nearly_idle = self._joined = False
        self._closed = False
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._process, self._connection = self._begin()
        self._poller = self._watch()

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        return self._process.pid

    @property
    def idle(self) -> bool:
        """Nothing is under way."""
        return not self._rows

    @property
    def wants_rows(self) -> bool:
        """As `LayerBatcher.wants_rows`, without asking the process."""
        thin = len(self._rows) <= MIN_FILL * self.max_rows and not self._joined
        return thin or self.idle

    @property
    def takes_early(self) -> bool:
        """Whether the last layers of all that is under way run now: what is admitted follows it."""
        return self._nearly_idle

    def await_ready(self) -> None:
        """Return when the layers are loaded; raises `BundleError` where they cannot be."""
        if not self._connection.poll(START_S):
            raise BundleError(f"bundle: its layers took more than {START_S:.0f} s to load")
        try:
            started: Started = self._connection.recv()
        except EOFError:
            raise BundleError("bundle: the process that loads its layers ended") from None
        if started.error is not None:
            raise BundleError(started.error)

    def admit(self, rows: Sequence[Row], yields: bool = False) -> None:
        """Take rows in. ``yields``: the layers leave the cores to who else wants them, until rows
        come without it: in an overload, to the server that has to refuse.
        """
        self._joined = not self.idle
        states = []
        for row in rows:
            self._number += 1
            self._rows[self._number] = row
            states.append(State(self._number, row.given, row.after, row.alpha))
        self._send(Admit(states, follows=self._nearly_idle, yields=yields))
        self._nearly_idle = False

    def drop(self, gone: Set[Row]) -> None:
        """Let go of rows that nobody waits for any more."""
        numbers = [number for number, row in self._rows.items() if row in gone]
        for number in numbers:
            del self._rows[number]
        self._send(Drop(numbers))

    def step(self) -> list[tuple[Row, Prediction | Exception]]:
        """Wait until rows are done, or until `wake`; returns those that are done."""
        if self._woken.fileno() in [fd for fd, _ in self._poller.poll()]:
            self._woken.recv(4096)
            return []
        try:
            news: Done = self._connection.recv()
        except (EOFError, OSError):
            return self._again()
        done: list[tuple[Row, Prediction | Exception]] = []
        for number, outcome, compute_ms in news.rows:
            row = self._rows.pop(number, None)
            if row is not None:
                row.compute_ms = compute_ms
                done.append((row, outcome))
        self._nearly_idle = (self._nearly_idle or news.nearly_idle) and not self.idle
        return done

    def wake(self) -> None:
        """Make `step` return, for there is something to admit; from any thread."""
        with suppress(BlockingIOError):  # then there are many wakes in it already
            self._waker.send(b"1")

    def close(self) -> None:
        """End the process; what is under way is lost."""
        self._closed = True
        self._waker.close()
        self._woken.close()
        self._connection.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _begin(self) -> tuple[subprocess.Popen[bytes], Connection]:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "shared.inference.batcher_worker", str(theirs.fileno())],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        connection = Connection(ours.detach())
        connection.send(self._start)
        return process, connection

    def _watch(self) -> select.poll:
        poller = select.poll()
        for one in (self._connection, self._woken):
            poller.register(one.fileno(), select.POLLIN)
        return poller

    def _send(self, message: Admit | Drop) -> None:
        with suppress(OSError):  # it has ended; the next step says so
            self._connection.send(message)

    def _again(self) -> list[tuple[Row, Prediction | Exception]]:
        lost = list(self._rows.values())
        self._rows.clear()
        self._nearly_idle = False
        self._process.kill()
        log.error("the layers' process ended (%s); starting another", self._process.wait())
        self._connection.close()
        while not self._closed:
            self._process, self._connection = self._begin()
            self._poller = self._watch()
            try:
                self.await_ready()
                break
            except DimeeError as error:
                log.error("%s", error.message)
                self._process.kill()
                self._process.wait()
                self._connection.close()
                time.sleep(PAUSE_S)
        return [(row, NotReady("the layers' process ended; ask again")) for row in lost]
