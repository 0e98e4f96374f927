"""Messages between a `ProcessBatcher` and its process; pickled, parent and child only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from shared.domain import LayerRange, Prediction
from shared.inference.layers import Floats
from shared.inference.tokenizer import EncodedText, TokenIds


class Start(NamedTuple):
    """The first message to the process: which layers of which bundle, in which groups."""

    bundle: str
    layers: LayerRange
    max_rows: int
    max_tokens: int


class Started(NamedTuple):
    """The answer: ready, or the sentence that says why not."""

    error: str | None


class State(NamedTuple):
    """A row under its number; the rest is `shared.inference.layer_batcher.Row`'s."""

    number: int
    given: EncodedText | TokenIds | Floats
    after: int
    alpha: float | None


class Admit(NamedTuple):
    """Rows to take in: now, or as soon as nothing else is under way.

    ``yields``: from now on the layers leave the cores to whoever else wants them.
    """

    rows: Sequence[State]
    follows: bool = False
    yields: bool = False


class Drop(NamedTuple):
    """Numbers of rows to let go of."""

    numbers: Sequence[int]


class Done(NamedTuple):
    """Rows that are done, each with its milliseconds of the layers."""

    rows: Sequence[tuple[int, Prediction | Exception, float]]
    nearly_idle: bool = False
    """All rows under way are in their last `LOOKAHEAD` layers."""
