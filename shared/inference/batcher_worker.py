"""``python -m shared.inference.batcher_worker FD``: the process behind a `ProcessBatcher`.

It ends when the other end of its socket is closed, however that came about.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection

from shared.bundle.loading import load_bundle
from shared.domain import Prediction
from shared.errors import DimeeError
from shared.inference.batcher_messages import Admit, Done, Drop, Start, Started
from shared.inference.classifier import Classifier
from shared.inference.layer_batcher import LayerBatcher, Row

log = logging.getLogger(__name__)
NICE = 10
"""Against whoever has 0 the layers get a tenth of a core."""


def main(connection: Connection) -> None:
    """Load the layers, then run what is admitted until the other end is gone."""
    start: Start = connection.recv()
    try:
        classifier = Classifier(load_bundle(start.bundle), start.layers)
        classifier.warm_up()
    except DimeeError as error:
        connection.send(Started(error.message))
        return
    connection.send(Started(None))
    flow = LayerBatcher(
        classifier.layers, start.max_rows, start.max_tokens, embeddings=classifier.embeddings
    )
    worker = _Worker(connection, flow)
    # on Linux each thread has a niceness of its own, and none may lower it again
    with ThreadPoolExecutor(1, initializer=partial(os.nice, NICE)) as nice:
        while True:
            worker.run(yields=False)
            nice.submit(worker.run, yields=True).result()


class _Worker:
    def __init__(self, connection: Connection, flow: LayerBatcher) -> None:
        self._connection = connection
        self._flow = flow
        self._numbers: dict[Row, int] = {}
        self._next: list[list[Row]] = []
        self._says_when = False
        self._yields = False
        # Connection.poll makes a selector for each call, which takes longer than some layers
        self._poller = select.poll()
        self._poller.register(connection.fileno(), select.POLLIN | select.POLLHUP)

    def run(self, yields: bool) -> None:
        """Run what comes, for as long as it comes with this ``yields``."""
        while True:
            self._read()
            if self._yields is not yields:
                return
            if self._flow.nearly_idle and self._says_when:
                # others may wait, and come while the last layers run
                self._connection.send(Done((), nearly_idle=True))
                self._says_when = False
            done = [
                (self._numbers.pop(row), _sendable(outcome), row.compute_ms)
                for row, outcome in self._flow.step()
            ]
            if done:
                self._connection.send(Done(done))

    def _read(self) -> None:
        """Take what has come; return when there is something to run."""
        while True:
            while self._flow.idle and self._next:
                self._admit(self._next.pop(0))
            if not (self._flow.idle or self._poller.poll(0)):
                return
            self._take(self._connection.recv())

    def _take(self, message: Admit | Drop) -> None:
        if isinstance(message, Drop):
            gone = {row for row, number in self._numbers.items() if number in set(message.numbers)}
            self._flow.drop(gone)
            self._next = [[row for row in rows if row not in gone] for rows in self._next]
            for row in gone:
                del self._numbers[row]
            return
        self._yields = message.yields
        rows = {Row(one.given, one.after, one.alpha): one.number for one in message.rows}
        self._numbers |= rows
        if message.follows:
            self._next.append(list(rows))
        else:
            self._admit(list(rows))

    def _admit(self, rows: list[Row]) -> None:
        self._says_when = len(rows) >= 2
        self._flow.admit(rows)


def _sendable(outcome: Prediction | Exception) -> Prediction | Exception:
    """Exceptions of onnxruntime cannot be pickled."""
    if isinstance(outcome, Prediction):
        return outcome
    log.error("a layer failed", exc_info=outcome)
    return RuntimeError("a layer failed; see the log")


if __name__ == "__main__":
    # the server decides when it ends, also where a terminal signals both
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(EOFError, OSError):  # the server is gone
        main(Connection(int(sys.argv[1])))
