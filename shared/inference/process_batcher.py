"""A `LayerBatcher` in a worker process.

A batch needs Python's interpreter lock between two layers. In the server's process, batches, the
event loop and the other workers would wait for each other's lock.
"""

from __future__ import annotations

import logging
import os
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
from shared.inference.batcher_messages import Admit, Done, Drop, NumberedRow, Start, Started
from shared.inference.devices import CPU, ComputeDevice
from shared.inference.layer_batcher import MIN_FILL, Row

log = logging.getLogger(__name__)
START_TIMEOUT_S = {"onnx": 60.0, "cuda": 300.0}
"""Time in which a worker must have loaded its layers, by runtime; torch takes long to import."""
RESTART_PAUSE_S = 1.0
"""Pause between two attempts to start a worker process that failed to start."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Variables of a worker, which has one core: numpy would use as many threads as the host has cores,
whatever the CPU quota is."""


def start_processes(
    bundle: Bundle, layers: LayerRange, devices: Sequence[ComputeDevice]
) -> list[ProcessBatcher]:
    """Start a worker process on each of ``devices`` and wait until their layers are loaded.

    Raises `BundleError` if a process cannot load its layers; all processes are then ended.
    """
    batchers: list[ProcessBatcher] = []
    try:
        for device in devices:
            batchers.append(ProcessBatcher(bundle, layers, device))
        for batcher in batchers:
            batcher.await_ready()
    except BaseException:
        for batcher in batchers:
            batcher.close()
        raise
    return batchers


class ProcessBatcher:
    """Runs a `LayerBatcher` in a worker process. Not thread-safe, except for `wake`.

    The worker announces a few layers in advance that it will be idle, so that the next batch is
    ready in time. If the worker process dies (killed, out of memory, an error of the GPU), its rows
    fail at once with `NotReady`, so that a caller can ask another tier. The next steps start
    another one, each with one attempt; `accepts_rows` is False until one has started.
    """

    def __init__(
        self,
        bundle: Bundle,
        layers: LayerRange,
        device: ComputeDevice = CPU,
        max_rows: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self.device = device
        self.max_rows = max_rows or device.max_rows
        self.max_tokens = max_tokens or device.max_tokens
        self._start = Start(
            str(bundle.path.absolute()),
            bundle.bundle_id,
            layers,
            device,
            self.max_rows,
            self.max_tokens,
        )
        self._rows: dict[int, Row] = {}
        self._number = 0
        self._nearly_idle = self._merged = False
        self._ended = False
        self.failed = False
        """True from an attempt to replace a worker that failed until one succeeds."""
        self.restarts = 0
        """Number of workers that ended and were replaced."""
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._process, self._connection = self._start_worker()
        self._poller = self._make_poller()

    @property
    def pid(self) -> int:
        """Process id of the current worker."""
        return self._process.pid

    @property
    def idle(self) -> bool:
        """True if no row is in progress."""
        return not self._rows

    @property
    def accepts_rows(self) -> bool:
        """Estimate of the batcher's ``accepts_rows`` that needs no message to the worker."""
        if self._ended:
            return False
        if self.device.runtime == "cuda":
            return self.idle
        small = len(self._rows) <= MIN_FILL * self.max_rows and not self._merged
        return small or self.idle

    @property
    def accepts_next_batch(self) -> bool:
        """True if all rows in progress are in their last layers; admitted rows run after them."""
        return self._nearly_idle

    def await_ready(self) -> None:
        """Wait until the layers are loaded; raise `BundleError` if loading fails."""
        timeout_s = START_TIMEOUT_S[self.device.runtime]
        if not self._connection.poll(timeout_s):
            raise BundleError(f"bundle: its layers took more than {timeout_s:.0f} s to load")
        try:
            started: Started = self._connection.recv()
        except EOFError:
            raise BundleError("bundle: the process that loads its layers died") from None
        if started.error is not None:
            raise BundleError(started.error)

    def admit(self, rows: Sequence[Row], low_priority: bool = False) -> None:
        """Add rows.

        With ``low_priority`` the layers run at a lower scheduling priority until rows are admitted
        without it. In overload this leaves the cores to the server, which has to refuse requests.
        """
        self._merged = not self.idle
        states = []
        for row in rows:
            self._number += 1
            self._rows[self._number] = row
            states.append(NumberedRow(self._number, row.source, row.after, row.alpha))
        self._send(Admit(states, follows=self._nearly_idle, low_priority=low_priority))
        self._nearly_idle = False

    def drop(self, rows: Set[Row]) -> None:
        """Remove rows whose callers no longer wait."""
        numbers = [number for number, row in self._rows.items() if row in rows]
        for number in numbers:
            del self._rows[number]
        self._send(Drop(numbers))

    def step(self) -> list[tuple[Row, Prediction | Exception]]:
        """Wait until rows are finished or `wake` is called; return the finished rows.

        After the end of the worker process, try to start another one.
        """
        if self._ended:
            self._restart()
            return []
        if self._woken.fileno() in [fd for fd, _ in self._poller.poll()]:
            self._woken.recv(4096)
            return []
        try:
            message: Done = self._connection.recv()
        except (EOFError, OSError):
            return self._end()
        done: list[tuple[Row, Prediction | Exception]] = []
        for number, outcome, compute_ms in message.rows:
            row = self._rows.pop(number, None)
            if row is not None:
                row.compute_ms = compute_ms
                done.append((row, outcome))
        self._nearly_idle = (self._nearly_idle or message.nearly_idle) and not self.idle
        return done

    def wake(self) -> None:
        """Make `step` return, because there are rows to admit. Thread-safe."""
        with suppress(BlockingIOError):  # the socket's buffer is full of earlier wake-ups
            self._waker.send(b"1")

    def close(self) -> None:
        """End the worker and discard the rows in progress."""
        self._waker.close()
        self._woken.close()
        self._connection.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start_worker(self) -> tuple[subprocess.Popen[bytes], Connection]:
        server_end, worker_end = socket.socketpair()
        with worker_end:
            process = subprocess.Popen(
                [sys.executable, "-m", "shared.inference.batcher_worker", str(worker_end.fileno())],
                cwd=Path(__file__).parents[2],
                env=os.environ | ONE_THREAD,
                stdin=subprocess.DEVNULL,
                pass_fds=[worker_end.fileno()],
            )
        connection = Connection(server_end.detach())
        connection.send(self._start)
        return process, connection

    def _make_poller(self) -> select.poll:
        poller = select.poll()
        for source in (self._connection, self._woken):
            poller.register(source.fileno(), select.POLLIN)
        return poller

    def _send(self, message: Admit | Drop) -> None:
        with suppress(OSError):  # the worker has ended; the next step notices
            self._connection.send(message)

    def _end(self) -> list[tuple[Row, Prediction | Exception]]:
        """Return the rows of the worker process, which has ended, with their error."""
        lost = list(self._rows.values())
        self._rows.clear()
        self._nearly_idle = False
        self._ended = True
        self._stop_worker()
        code = self._process.returncode
        log.error("a worker process ended (exit code %s); starting another", code)
        return [(row, NotReady("the worker process ended; try again")) for row in lost]

    def _restart(self) -> None:
        """Start a worker; if that fails, return after a pause."""
        self._process, self._connection = self._start_worker()
        self._poller = self._make_poller()
        self.restarts += 1
        try:
            self.await_ready()
            self._ended = self.failed = False
        except DimeeError as error:
            log.error("%s", error.message)
            self.failed = True
            self._stop_worker()
            time.sleep(RESTART_PAUSE_S)

    def _stop_worker(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()
