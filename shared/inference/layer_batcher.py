"""Batched early exit: rows pass the layers together, each leaves where it would leave alone.

After every layer the rows that are sure, or at their last layer, are handed out at once and the
rest is compacted. A group that has become thin waits where it is while new rows catch up with it,
once; then they go on together. No row's answer depends on its neighbours.

Shape suffixes: B rows, T tokens, H hidden size, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from shared.domain import Prediction
from shared.inference.embeddings import Embeddings
from shared.inference.layers import Floats, Layers, Mask, meets_threshold, prediction_of, softmax
from shared.inference.tokenizer import EncodedText, TokenIds

MAX_ROWS = 8
MAX_TOKENS = 2048
MIN_FILL = 0.25
"""Up to this share of a full batch's rows a group waits for others, once."""
LOOKAHEAD = 2
"""So many layers before its last one a batch is nearly done: the next may be chosen."""
WORTH_TOKENS = 10
"""What one run less of a layer saves, in tokens: joining may not pad by more."""


@dataclass(eq=False, slots=True)
class Row:
    """One text under way: ``given`` is the output of layer ``after``, ``hidden_TH``, where 0 stands
    for the embeddings; or a text still to be embedded.

    ``alpha`` is the row's own threshold; None: it leaves at its last layer. ``compute_ms`` is its
    share, by tokens, of the time of the layers that it went through.
    """

    given: EncodedText | TokenIds | Floats
    after: int
    alpha: float | None
    compute_ms: float = 0.0
    waited: bool = False

    @property
    def tokens(self) -> int:
        """T."""
        return len(self.given)


@dataclass(eq=False, slots=True)
class _Group:
    """Rows that have passed the same layers, padded to the longest."""

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
    """Groups under way through ``layers``; used from one thread.

    ``max_rows`` and ``max_tokens`` (padding included) bound a group. Without ``embeddings`` rows
    are given as states only.
    """

    layers: Layers
    max_rows: int = MAX_ROWS
    max_tokens: int = MAX_TOKENS
    embeddings: Embeddings | None = None
    _groups: list[_Group] = field(default_factory=list)

    @property
    def idle(self) -> bool:
        """Nothing is under way."""
        return not self._groups

    @property
    def wants_rows(self) -> bool:
        """Whether new rows may be admitted: nothing is under way, or one thin group that has not
        waited yet."""
        if not self._groups:
            return True
        (first, *others) = self._groups
        return not others and not first.has_waited and len(first.rows) <= MIN_FILL * self.max_rows

    @property
    def takes_early(self) -> bool:
        """Never: rows that come while a layer runs are admitted after it."""
        return False

    @property
    def nearly_idle(self) -> bool:
        """Whether `LOOKAHEAD` steps or fewer end all that is under way."""
        return (
            len(self._groups) == 1 and self._groups[0].after >= self.layers.range.last - LOOKAHEAD
        )

    def admit(self, rows: Sequence[Row], yields: bool = False) -> None:
        """Take rows in; groups are made of neighbours in length.

        ``yields`` means nothing here: it has no process of its own.
        """
        for group in self._groups:
            for row in group.rows:
                row.waited = True
        texts = [(row, row.given) for row in rows if not isinstance(row.given, np.ndarray)]
        if texts:
            assert self.embeddings is not None
            states = self.embeddings.hidden_of([given for _, given in texts])
            for (row, _), hidden_TH in zip(texts, states, strict=True):
                row.given = hidden_TH
        for after in sorted({row.after for row in rows}):
            same = sorted((row for row in rows if row.after == after), key=lambda row: row.tokens)
            while same:
                count = self._fitting(same)
                self._groups.append(_padded(same[:count]))
                same = same[count:]

    def wake(self) -> None:
        """Nothing to wake: it asks after every layer."""

    def close(self) -> None:
        """Give up everything that is under way."""
        self._groups.clear()

    def drop(self, gone: Set[Row]) -> None:
        """Let go of rows that nobody waits for any more."""
        for group in list(self._groups):
            stays = [i for i, row in enumerate(group.rows) if row not in gone]
            if len(stays) < len(group.rows):
                _keep(group, np.array(stays, np.intp))
                self._tidy(group)

    def step(self) -> list[tuple[Row, Prediction | Exception]]:
        """Run one layer of the group that is furthest behind; returns the rows that are done.

        A row whose layer cannot be run fails alone: its group goes on without it.
        """
        group = min(self._groups, key=lambda one: one.after)
        started = time.perf_counter()
        layer = group.after + 1
        try:
            hidden_BTH, logits_BC = self.layers.run_layer(layer, group.hidden_BTH, group.mask_BT)
        except Exception as error:  # onnxruntime raises its own kinds without a common base
            return self._apart(group, error)
        spent_ms = (time.perf_counter() - started) * 1e3
        total = sum(row.tokens for row in group.rows)
        for row in group.rows:
            row.compute_ms += spent_ms * row.tokens / total
        group.hidden_BTH, group.after = hidden_BTH, layer
        done = self._leaving(group, logits_BC)
        self._tidy(group)
        return done

    def _apart(self, group: _Group, error: Exception) -> list[tuple[Row, Prediction | Exception]]:
        self._groups.remove(group)
        if len(group.rows) == 1:
            return [(group.rows[0], error)]
        for i, row in enumerate(group.rows):
            alone = slice(i, i + 1), slice(0, row.tokens)
            hidden_BTH = np.ascontiguousarray(group.hidden_BTH[alone])
            mask_BT = np.ascontiguousarray(group.mask_BT[alone])
            self._groups.append(_Group([row], hidden_BTH, mask_BT, group.after))
        return []

    def _leaving(
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
            _keep(group, np.flatnonzero(~np.array(leaves)))
        return done

    def _tidy(self, group: _Group) -> None:
        """Drop a group that is empty; join two that have come to the same layer."""
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
                and padding <= WORTH_TOKENS
            ):
                _join(group, other, width)
                self._groups.remove(other)
                return

    def _fitting(self, rows: Sequence[Row]) -> int:
        """How many of ``rows``, in order of length, fit one group; one always does."""
        count = 1
        while count < min(len(rows), self.max_rows):
            if (count + 1) * rows[count].tokens > self.max_tokens:
                break
            count += 1
        return count


def _padded(rows: list[Row]) -> _Group:
    width = max(row.tokens for row in rows)
    states = [row.given for row in rows if isinstance(row.given, np.ndarray)]
    hidden_BTH = np.zeros((len(rows), width, states[0].shape[1]), np.float32)
    mask_BT = np.zeros((len(rows), width), np.int32)
    for i, (row, hidden_TH) in enumerate(zip(rows, states, strict=True)):
        hidden_BTH[i, : row.tokens] = hidden_TH
        mask_BT[i, : row.tokens] = 1
    return _Group(rows, hidden_BTH, mask_BT, rows[0].after)


def _keep(group: _Group, index_B: np.ndarray[tuple[int], np.dtype[np.intp]]) -> None:
    group.rows = [group.rows[i] for i in index_B]
    if not group.rows:
        return
    width = max(row.tokens for row in group.rows)
    group.hidden_BTH = np.ascontiguousarray(group.hidden_BTH[index_B, :width])
    group.mask_BT = np.ascontiguousarray(group.mask_BT[index_B, :width])


def _join(group: _Group, other: _Group, width: int) -> None:
    parts = []
    for one in (group, other):
        rest = width - one.mask_BT.shape[1]
        hidden_BTH = np.pad(one.hidden_BTH, ((0, 0), (0, rest), (0, 0)))
        parts.append((hidden_BTH, np.pad(one.mask_BT, ((0, 0), (0, rest)))))
    group.hidden_BTH, group.mask_BT = (np.concatenate(both) for both in zip(*parts, strict=True))
    group.rows += other.rows
