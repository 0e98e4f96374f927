"""Batched early exit: rows run through the layers together, and each leaves at its own exit.

After every layer, rows leave the batch if their confidence meets their threshold or if the layer is
the last one. A group with few rows left pauses once, until new rows have reached the same layer;
then the two groups are merged. A row's answer and exit layer are the same alone and in a batch.

Shape suffixes: B rows, T tokens, H hidden size, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from shared.domain import Prediction
from shared.inference.embeddings import Embeddings
from shared.inference.layers import (
    Floats,
    LayerRuntime,
    Mask,
    meets_threshold,
    prediction_of,
    softmax,
)
from shared.inference.tokenizer import EncodedText, TokenIds

MAX_ROWS = 8
MAX_TOKENS = 2048
MIN_FILL = 0.25
"""A group with at most this share of ``max_rows`` pauses once until new rows reach it."""
LOOKAHEAD = 2
"""The next batch may be chosen when a batch is at most this many layers from its last one."""
LAYER_OVERHEAD_TOKENS = 10
"""Fixed cost of running a layer, in tokens. Merging two groups may add at most this padding."""


@dataclass(eq=False, slots=True)
class Row:
    """One text in the layers.

    ``source`` is a tokenised text, or ``hidden_TH``, the output of layer ``after`` (0: the
    embeddings). ``alpha`` is the row's exit threshold; with None it leaves at the last layer.
    ``compute_ms`` is its share, by tokens, of the time of its layers. ``waited`` is True once its
    group has paused for other rows.
    """

    source: EncodedText | TokenIds | Floats
    after: int
    alpha: float | None
    compute_ms: float = 0.0
    waited: bool = False

    @property
    def tokens(self) -> int:
        """Number of tokens T."""
        return len(self.source)


@dataclass(eq=False, slots=True)
class _Group:
    """Rows that have passed the same layers, padded to the longest one."""

    rows: list[Row]
    hidden_BTH: Floats
    mask_BT: Mask
    after: int

    @property
    def padded(self) -> int:
        return self.mask_BT.size

    @property
    def has_waited(self) -> bool:
        return any(row.waited for row in self.rows)


@dataclass
class LayerBatcher:
    """Runs groups of rows through ``layers``, in the caller's thread. Not thread-safe.

    A group has at most ``max_rows`` rows and ``max_tokens`` tokens, padding included. Without
    ``embeddings`` it accepts hidden states only.
    """

    layers: LayerRuntime
    max_rows: int = MAX_ROWS
    max_tokens: int = MAX_TOKENS
    embeddings: Embeddings | None = None
    _groups: list[_Group] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        """True if no row is in progress."""
        return not self._groups

    @property
    def accepts_rows(self) -> bool:
        """True if rows may be admitted.

        True if no row is in progress, or only one small group that has not paused yet.
        """
        if not self._groups:
            return True
        (first, *other_groups) = self._groups
        return (
            not other_groups
            and not first.has_waited
            and len(first.rows) <= MIN_FILL * self.max_rows
        )

    @property
    def accepts_next_batch(self) -> bool:
        """Always False: rows that arrive while a layer runs are admitted after it."""
        return False

    @property
    def failed(self) -> bool:
        """Always False: the batcher has no process of its own."""
        return False

    @property
    def nearly_idle(self) -> bool:
        """True if everything in progress ends within `LOOKAHEAD` steps."""
        return (
            len(self._groups) == 1 and self._groups[0].after >= self.layers.range.last - LOOKAHEAD
        )

    def admit(self, rows: Sequence[Row], low_priority: bool = False) -> None:
        """Add rows, in groups of similar length.

        ``low_priority`` has no effect: the batcher has no process of its own.
        """
        for group in self._groups:
            for row in group.rows:
                row.waited = True
        texts = [(row, row.source) for row in rows if not isinstance(row.source, np.ndarray)]
        if texts:
            assert self.embeddings is not None
            states = self.embeddings.hidden_of([source for _, source in texts])
            for (row, _), hidden_TH in zip(texts, states, strict=True):
                row.source = hidden_TH
        for after in sorted({row.after for row in rows}):
            waiting = sorted(
                (row for row in rows if row.after == after), key=lambda row: row.tokens
            )
            while waiting:
                count = self._group_size(waiting)
                self._groups.append(_padded(waiting[:count]))
                waiting = waiting[count:]

    def wake(self) -> None:
        """Do nothing: the caller can admit rows after every layer."""

    def close(self) -> None:
        """Discard everything in progress."""
        self._groups.clear()

    def drop(self, rows: Set[Row]) -> None:
        """Remove rows whose callers no longer wait."""
        for group in list(self._groups):
            stays = [i for i, row in enumerate(group.rows) if row not in rows]
            if len(stays) < len(group.rows):
                _select(group, np.array(stays, np.intp))
                self._merge_or_remove(group)

    def step(self) -> list[tuple[Row, Prediction | Exception]]:
        """Run one layer of the group that has done the fewest layers; return the finished rows.

        If the layer fails, the group is split into single rows, so that only the row that causes
        the failure ends with the exception.
        """
        group = min(self._groups, key=lambda candidate: candidate.after)
        started = time.perf_counter()
        layer = group.after + 1
        try:
            hidden_BTH, logits_BC = self.layers.run_layer(layer, group.hidden_BTH, group.mask_BT)
        except Exception as error:  # onnxruntime's exceptions have no common base class
            return self._split(group, error)
        spent_ms = (time.perf_counter() - started) * 1e3
        total = sum(row.tokens for row in group.rows)
        for row in group.rows:
            row.compute_ms += spent_ms * row.tokens / total
        group.hidden_BTH, group.after = hidden_BTH, layer
        done = self._exit_rows(group, logits_BC)
        self._merge_or_remove(group)
        return done

    def _split(self, group: _Group, error: Exception) -> list[tuple[Row, Prediction | Exception]]:
        self._groups.remove(group)
        if len(group.rows) == 1:
            return [(group.rows[0], error)]
        for i, row in enumerate(group.rows):
            alone = slice(i, i + 1), slice(0, row.tokens)
            hidden_BTH = np.ascontiguousarray(group.hidden_BTH[alone])
            mask_BT = np.ascontiguousarray(group.mask_BT[alone])
            self._groups.append(_Group([row], hidden_BTH, mask_BT, group.after))
        return []

    def _exit_rows(
        self, group: _Group, logits_BC: Floats
    ) -> list[tuple[Row, Prediction | Exception]]:
        last = group.after == self.layers.range.last
        if not last and all(row.alpha is None for row in group.rows):
            return []
        probabilities_BC = softmax(logits_BC)
        confidence_B = probabilities_BC.max(1)
        leaves = [
            last or bool(meets_threshold(confidence, row.alpha))
            for row, confidence in zip(group.rows, confidence_B, strict=True)
        ]
        done: list[tuple[Row, Prediction | Exception]] = [
            (row, prediction_of(probabilities_BC[i], group.after))
            for i, row in enumerate(group.rows)
            if leaves[i]
        ]
        if done:
            _select(group, np.flatnonzero(~np.array(leaves)))
        return done

    def _merge_or_remove(self, group: _Group) -> None:
        """Remove an empty group; merge a group with another one after the same layer."""
        if not group.rows:
            self._groups.remove(group)
            return
        for other in self._groups:
            if other is group or other.after != group.after:
                continue
            rows = len(group.rows) + len(other.rows)
            width = max(group.mask_BT.shape[1], other.mask_BT.shape[1])
            padding = rows * width - group.padded - other.padded
            if (
                rows <= self.max_rows
                and rows * width <= self.max_tokens
                and padding <= LAYER_OVERHEAD_TOKENS
            ):
                _merge(group, other, width)
                self._groups.remove(other)
                return

    def _group_size(self, rows: Sequence[Row]) -> int:
        """Return how many of ``rows``, sorted by length, fit one group; at least one."""
        count = 1
        while count < min(len(rows), self.max_rows):
            if (count + 1) * rows[count].tokens > self.max_tokens:
                break
            count += 1
        return count


def _padded(rows: list[Row]) -> _Group:
    width = max(row.tokens for row in rows)
    states = [row.source for row in rows if isinstance(row.source, np.ndarray)]
    hidden_BTH = np.zeros((len(rows), width, states[0].shape[1]), np.float32)
    mask_BT = np.zeros((len(rows), width), np.int32)
    for i, (row, hidden_TH) in enumerate(zip(rows, states, strict=True)):
        hidden_BTH[i, : row.tokens] = hidden_TH
        mask_BT[i, : row.tokens] = 1
    return _Group(rows, hidden_BTH, mask_BT, rows[0].after)


def _select(group: _Group, index_B: np.ndarray[tuple[int], np.dtype[np.intp]]) -> None:
    group.rows = [group.rows[i] for i in index_B]
    if not group.rows:
        return
    width = max(row.tokens for row in group.rows)
    group.hidden_BTH = np.ascontiguousarray(group.hidden_BTH[index_B, :width])
    group.mask_BT = np.ascontiguousarray(group.mask_BT[index_B, :width])


def _merge(group: _Group, other: _Group, width: int) -> None:
    parts = []
    for member in (group, other):
        padding = width - member.mask_BT.shape[1]
        hidden_BTH = np.pad(member.hidden_BTH, ((0, 0), (0, padding), (0, 0)))
        parts.append((hidden_BTH, np.pad(member.mask_BT, ((0, 0), (0, padding)))))
    group.hidden_BTH, group.mask_BT = (
        np.concatenate(arrays) for arrays in zip(*parts, strict=True)
    )
    group.rows += other.rows
