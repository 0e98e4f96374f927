"""Messages between a `ProcessBatcher` and its worker process, pickled on a private socket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shared.domain import LayerRange, Prediction
from shared.inference.devices import ComputeDevice
from shared.inference.layers import Floats
from shared.inference.tokenizer import EncodedText, TokenIds


class Start(NamedTuple):
    """First message to the worker: bundle, layers, device and the largest batch."""

    bundle: str
    bundle_id: str
    layers: LayerRange
    device: ComputeDevice
    max_rows: int
    max_tokens: int


class Started(NamedTuple):
    """Reply to `Start`: ``error`` is None when the layers are loaded."""

    error: str | None


class NumberedRow(NamedTuple):
    """A `shared.inference.layer_batcher.Row` with a number."""

    number: int
    source: EncodedText | TokenIds | Floats
    after: int
    alpha: float | None


class Admit(NamedTuple):
    """Rows to add at once, or (``follows``) when nothing else is in progress.

    With ``low_priority`` the layers run at a lower scheduling priority from now on.
    """

    rows: Sequence[NumberedRow]
    follows: bool = False
    low_priority: bool = False


class Drop(NamedTuple):
    """Numbers of rows to remove."""

    numbers: Sequence[int]


class Done(NamedTuple):
    """Finished rows: number, outcome and the row's ``compute_ms``."""

    rows: Sequence[tuple[int, Prediction | Exception, float]]
    nearly_idle: bool = False
    """True if everything in progress ends within `LOOKAHEAD` layers."""
