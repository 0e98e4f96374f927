"""Interface of the objects that run the batches of an engine."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Protocol

from shared.domain import Prediction
from shared.inference.layer_batcher import Row


class BatchExecutor(Protocol):
    """Runs rows in batches: `LayerBatcher` in this process or `ProcessBatcher` in another."""

    max_rows: int
    max_tokens: int

    @property
    def idle(self) -> bool: ...
    @property
    def accepts_rows(self) -> bool: ...
    @property
    def accepts_next_batch(self) -> bool: ...
    @property
    def failed(self) -> bool: ...
    def admit(self, rows: Sequence[Row], low_priority: bool = False) -> None: ...
    def drop(self, rows: Set[Row]) -> None: ...
    def step(self) -> list[tuple[Row, Prediction | Exception]]: ...
    def wake(self) -> None: ...
    def close(self) -> None: ...
