"""Batches of numbered rows, some of which may be wrong, and their classification."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from queue import Empty, Queue
from threading import Event, Thread
from time import monotonic

from mobile_client.client import MobileClient
from shared.errors import DimeeError, InvalidInput
from shared.text_files import NumberedRow
from shared.wire import Classification

_ROW = re.compile(r"(?:texts|pairs)\.(\d+)")
BATCH_ROWS = 200
"""Most rows that are classified together."""
BATCH_WAIT_S = 0.1
"""Longest time that the first row of a batch waits for others, in seconds."""


def batches(
    rows: Iterable[NumberedRow], size: int = BATCH_ROWS, wait_s: float = BATCH_WAIT_S
) -> Generator[list[NumberedRow], None, None]:
    """Yield the rows in batches of at most ``size``.

    A batch with fewer rows is yielded ``wait_s`` seconds after its first row, so that a slow writer
    of a pipe, or a user at a terminal, sees the answers to what was sent. A thread reads the rows;
    its errors are raised after the rows that were read before.
    """
    queue: Queue[NumberedRow | Exception | None] = Queue(size)
    stopped = Event()

    def read() -> None:
        end: Exception | None = None
        try:
            for row in rows:
                queue.put(row)
                if stopped.is_set():
                    return
        except Exception as error:
            end = error
        queue.put(end)

    Thread(target=read, name="dimee-rows", daemon=True).start()
    try:
        item = queue.get()
        while isinstance(item, NumberedRow):
            batch: list[NumberedRow] = []
            until = monotonic() + wait_s
            while isinstance(item, NumberedRow):
                batch.append(item)
                if len(batch) == size:
                    break
                try:
                    item = queue.get(timeout=max(until - monotonic(), 0))
                except Empty:
                    break
            yield batch
            if isinstance(item, NumberedRow):
                item = queue.get()
        if item is not None:
            raise item
    finally:
        stopped.set()
        with suppress(Empty):
            while True:  # the thread may wait for space
                queue.get_nowait()


def classify_rows(
    mobile: MobileClient, rows: Sequence[NumberedRow]
) -> list[Classification | DimeeError]:
    """Return an outcome for each row, in order; a wrong row has an error and stops no other."""
    outcomes: list[Classification | DimeeError | None] = [row.error for row in rows]
    left = [number for number, row in enumerate(rows) if row.row is not None]
    while left:
        inputs = [row.row for number in left if (row := rows[number]).row is not None]
        pairs = [text.pair for text in inputs if text.pair is not None]
        try:
            answers = mobile.classify_many([text.text for text in inputs], pairs or None)
        except InvalidInput as error:
            # the mobile checks all texts before it makes a request, and names the first wrong one
            match = _ROW.fullmatch(error.field or "")
            if match is None:
                raise
            number = left.pop(int(match[1]))
            message = f"{rows[number].place}: {_ROW.sub('text', error.message, count=1)}"
            outcomes[number] = type(error)(message, field="text", limit=error.limit)
            continue
        for number, answer in zip(left, answers, strict=True):
            outcomes[number] = answer
        break
    return [outcome for outcome in outcomes if outcome is not None]
