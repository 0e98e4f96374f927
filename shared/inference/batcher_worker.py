"""Worker process of a `ProcessBatcher`: ``python -m shared.inference.batcher_worker FD``.

It ends when the server closes the other end of the socket or dies.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
from collections.abc import Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Protocol

from shared.bundle.loading import load_bundle
from shared.domain import Prediction
from shared.errors import BundleError, DimeeError
from shared.inference.batcher_messages import Admit, Done, Drop, Start, Started
from shared.inference.classifier import Classifier
from shared.inference.layer_batcher import LayerBatcher, Row

log = logging.getLogger(__name__)
NICE = 10
"""Niceness at low priority. On a core shared with a busy process, layers get a tenth of it."""


def main(connection: Connection) -> None:
    """Load the layers, then run admitted rows until the connection closes (`EOFError`)."""
    start: Start = connection.recv()
    try:
        bundle = load_bundle(start.bundle)
        if bundle.bundle_id != start.bundle_id:
            raise BundleError(
                f"bundle: {start.bundle} is not the bundle {start.bundle_id} with which this "
                "service started; start the service again"
            )
        classifier = Classifier(bundle, start.layers, device=start.device)
        classifier.warm_up()
        batcher = _make_batcher(classifier, start)
    except DimeeError as error:
        connection.send(Started(error.message))
        return
    connection.send(Started(None))
    worker = _Worker(connection, batcher)
    # On Linux niceness is per thread and cannot be lowered again: low priority has its own thread.
    with ThreadPoolExecutor(1, initializer=partial(os.nice, NICE)) as low_priority:
        while True:
            worker.run(low_priority=False)
            low_priority.submit(worker.run, low_priority=True).result()


def _make_batcher(classifier: Classifier, start: Start) -> Batcher:
    if start.device.runtime == "onnx":
        return LayerBatcher(
            classifier.layers, start.max_rows, start.max_tokens, embeddings=classifier.embeddings
        )
    from shared.inference.cuda.layers import CudaLayers

    assert isinstance(classifier.layers, CudaLayers)
    batcher = classifier.layers.batcher()
    batcher.warm_up(classifier.short_text())
    return batcher


class Batcher(Protocol):
    """Runs rows: `LayerBatcher` or `shared.inference.cuda.batcher.CudaBatcher`."""

    @property
    def idle(self) -> bool: ...
    @property
    def nearly_idle(self) -> bool: ...
    def admit(self, rows: Sequence[Row], low_priority: bool = False) -> None: ...
    def drop(self, rows: Set[Row]) -> None: ...
    def step(self) -> list[tuple[Row, Prediction | Exception]]: ...


class _Worker:
    def __init__(self, connection: Connection, batcher: Batcher) -> None:
        self._connection = connection
        self._batcher = batcher
        self._numbers: dict[Row, int] = {}
        self._next: list[list[Row]] = []
        self._announces_end = False
        self._low_priority = False
        # Connection.poll makes a selector for each call, which takes longer than some layers
        self._poller = select.poll()
        self._poller.register(connection.fileno(), select.POLLIN | select.POLLHUP)

    def run(self, low_priority: bool) -> None:
        """Run admitted rows until rows arrive with a different ``low_priority``."""
        while True:
            self._receive()
            if self._low_priority is not low_priority:
                return
            if self._batcher.nearly_idle and self._announces_end:
                # the server can choose the next batch while the last layers run
                self._connection.send(Done((), nearly_idle=True))
                self._announces_end = False
            done = [
                (self._numbers.pop(row), _sendable(outcome), row.compute_ms)
                for row, outcome in self._batcher.step()
            ]
            if done:
                self._connection.send(Done(done))

    def _receive(self) -> None:
        """Handle received messages; return when there are rows to run."""
        while True:
            while self._batcher.idle and self._next:
                self._admit(self._next.pop(0))
            if not (self._batcher.idle or self._poller.poll(0)):
                return
            self._handle(self._connection.recv())

    def _handle(self, message: Admit | Drop) -> None:
        if isinstance(message, Drop):
            dropped = {
                row for row, number in self._numbers.items() if number in set(message.numbers)
            }
            self._batcher.drop(dropped)
            self._next = [[row for row in rows if row not in dropped] for rows in self._next]
            for row in dropped:
                del self._numbers[row]
            return
        self._low_priority = message.low_priority
        rows = {
            Row(numbered.source, numbered.after, numbered.alpha): numbered.number
            for numbered in message.rows
        }
        self._numbers |= rows
        if message.follows:
            self._next.append(list(rows))
        else:
            self._admit(list(rows))

    def _admit(self, rows: list[Row]) -> None:
        self._announces_end = len(rows) >= 2
        self._batcher.admit(rows)


def _sendable(outcome: Prediction | Exception) -> Prediction | Exception:
    """Return an outcome that can be pickled; exceptions of onnxruntime cannot."""
    if isinstance(outcome, Prediction):
        return outcome
    log.error("a layer failed", exc_info=outcome)
    return RuntimeError("a layer failed; see the log")


if __name__ == "__main__":
    # These may reach this process too (Ctrl-C, a service manager), but only the server may end it:
    # when it stops, it still answers the requests that are under way.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with suppress(EOFError, OSError):  # the server has ended
        main(Connection(int(sys.argv[1])))
