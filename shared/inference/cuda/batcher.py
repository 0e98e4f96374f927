"""Batched early exit on a GPU: the counterpart of `shared.inference.layer_batcher`.

A batch runs alone to its end. After each layer at which a row may exit, the logits of all rows are
copied to the host, the only copy. Rows that exit are left in place until fewer rows or tokens fit a
smaller bucket; then the others are moved together.
"""

from __future__ import annotations

import time
from collections.abc import Sequence, Set

import numpy as np

from shared.domain import Prediction
from shared.inference.cuda.batch import DeviceBatch
from shared.inference.layer_batcher import Row
from shared.inference.layers import meets_threshold, prediction_of, softmax
from shared.inference.tokenizer import EncodedText

WARM_UP_ROWS = (1, 2, 4, 8, 16, 32, 64)
"""Sizes of batches of short texts whose graphs are captured at the start."""


class CudaBatcher:
    """Runs rows through layers 1 to ``last`` in a `DeviceBatch`. Not thread-safe.

    Rows wait while another batch runs. An error of the device is raised by `step` and is final: the
    worker process must end.
    """

    def __init__(self, batch: DeviceBatch, last: int) -> None:
        self.max_rows, self.max_tokens = batch.max_rows, batch.max_tokens
        self._batch = batch
        self._last = last
        self._waiting: list[list[Row]] = []
        self._rows: dict[int, Row] = {}
        """Rows in the device's batch by their position in it."""
        self._after = 0
        self._compact = False

    def warm_up(self, source: EncodedText) -> None:
        """Run batches of a short text, so that the first requests wait for no capture."""
        for count in WARM_UP_ROWS if self._batch.captures else WARM_UP_ROWS[:1]:
            self.admit([Row(source, 0, None) for _ in range(count)])
            while not self.idle:
                self.step()

    @property
    def idle(self) -> bool:
        """True if no row is in progress or waits."""
        return not (self._rows or self._waiting)

    @property
    def accepts_rows(self) -> bool:
        """True if no row is in progress."""
        return self.idle

    @property
    def accepts_next_batch(self) -> bool:
        """Always False, as for `LayerBatcher`."""
        return False

    @property
    def nearly_idle(self) -> bool:
        """True while a batch runs: all its layers take about as long as choosing the next batch."""
        return not self.idle

    def admit(self, rows: Sequence[Row], low_priority: bool = False) -> None:
        """Add rows, in batches of similar length; ``low_priority`` has no effect."""
        for after in sorted({row.after for row in rows}):
            waiting = sorted(
                (row for row in rows if row.after == after), key=lambda row: -row.tokens
            )
            while waiting:
                count = self._batch.most_rows(waiting[0].tokens)
                self._waiting.append(waiting[:count])
                waiting = waiting[count:]

    def wake(self) -> None:
        """Do nothing: the caller can admit rows after every layer."""

    def close(self) -> None:
        """Discard everything in progress."""
        self._waiting.clear()
        self._rows.clear()

    def drop(self, rows: Set[Row]) -> None:
        """Remove rows whose callers no longer wait."""
        parts = ([row for row in part if row not in rows] for part in self._waiting)
        self._waiting = [part for part in parts if part]
        self._leave([position for position, row in self._rows.items() if row in rows])

    def step(self) -> list[tuple[Row, Prediction | Exception]]:
        """Run one layer of the batch; return the rows that exit after it."""
        started = time.perf_counter()
        if not self._rows:
            self._start(self._waiting.pop(0))
        elif self._compact:
            self._move_together()
        self._after += 1
        self._batch.run_layer(self._after)
        asked = self._after == self._last or any(row.alpha for row in self._rows.values())
        outcomes = self._exits() if asked else {}
        spent_ms = (time.perf_counter() - started) * 1e3
        total = sum(row.tokens for row in self._rows.values())
        for row in self._rows.values():
            row.compute_ms += spent_ms * row.tokens / total
        done = [(self._rows[position], outcome) for position, outcome in outcomes.items()]
        self._leave(outcomes)
        return done

    def _start(self, rows: list[Row]) -> None:
        self._batch.load([row.source for row in rows])
        self._rows = dict(enumerate(rows))
        self._after, self._compact = rows[0].after, False

    def _move_together(self) -> None:
        """Keep the remaining rows only, if they fit a smaller bucket."""
        tokens = max(row.tokens for row in self._rows.values())
        if self._batch.keep(list(self._rows), tokens):
            self._rows = dict(enumerate(self._rows.values()))
        self._compact = False

    def _exits(self) -> dict[int, Prediction | Exception]:
        """Return the outcomes of the rows that leave after this layer, by position."""
        probabilities_BC = softmax(self._batch.logits())
        confidence_B = probabilities_BC.max(1)
        outcomes: dict[int, Prediction | Exception] = {}
        for position, row in self._rows.items():
            confidence = confidence_B[position]
            if not np.isfinite(confidence):
                outcomes[position] = FloatingPointError(f"layer {self._after} is not finite")
            elif self._after == self._last or meets_threshold(confidence, row.alpha):
                outcomes[position] = prediction_of(probabilities_BC[position], self._after)
        return outcomes

    def _leave(self, positions: Sequence[int] | dict[int, Prediction | Exception]) -> None:
        for position in positions:
            del self._rows[position]
        self._compact |= bool(positions)
