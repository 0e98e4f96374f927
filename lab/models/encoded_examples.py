"""Examples as token ids, encoded once for all epochs of a training.

Shape suffixes: N examples, B rows, T tokens.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from lab.data.examples import Example
from shared.errors import InvalidInput
from shared.inference.tokenizer import EncodedText, TextEncoder
from shared.terminal import progress_stream


class EncodedExamples(Sequence[EncodedText]):
    """Token ids of examples, in the compact form of one array for all texts.

    The tokenizer is the one that serves a bundle. ``part`` names the examples in an error. Raises
    `InvalidInput` for a text in which the tokenizer knows no character.
    """

    def __init__(
        self, encoder: TextEncoder, examples: Sequence[Example], part: str = "given"
    ) -> None:
        ids, types, content = array("i"), array("b"), array("b")
        lengths: list[int] = []
        for number, example in enumerate(
            tqdm(examples, desc=f"tokenize {part}", mininterval=2, delay=2, file=progress_stream()),
            start=1,
        ):
            try:
                row = encoder.encode(example.text, example.pair)
            except InvalidInput:
                raise InvalidInput(
                    f"data: text {number} of the {part} examples, {example.text[:40]!a}, has no "
                    "character that the tokenizer knows; remove it"
                ) from None
            ids.frombytes(row.ids_T.astype(np.int32).tobytes())
            types.frombytes(row.type_ids_T.astype(np.int8).tobytes())
            content.frombytes(row.content_T.tobytes())
            lengths.append(row.tokens)
        self._ids = np.frombuffer(ids, np.int32)
        self._types = np.frombuffer(types, np.int8)
        self._content = np.frombuffer(content, np.bool_)
        self._ends = np.cumsum(lengths)
        self.lengths = lengths
        """Number of tokens of each text, special tokens included."""
        self.labels_N: NDArray[np.int64] = np.array([row.label for row in examples], np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> EncodedText: ...

    @overload
    def __getitem__(self, index: slice) -> list[EncodedText]: ...

    def __getitem__(self, index: int | slice) -> EncodedText | list[EncodedText]:
        """Return the ids, types and content mask of one text."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        end = int(self._ends[index])
        tokens = slice(end - self.lengths[index], end)
        return EncodedText(
            self._ids[tokens].astype(np.int64),
            self._types[tokens].astype(np.int64),
            self._content[tokens],
            truncated=False,
        )


def content_mask(rows: Sequence[EncodedText]) -> Tensor:
    """Return ``content_BT``: true for tokens that are neither special nor padding."""
    content_BT = torch.zeros((len(rows), max(row.tokens for row in rows)), dtype=torch.bool)
    for i, row in enumerate(rows):
        content_BT[i, : row.tokens] = torch.from_numpy(row.content_T)
    return content_BT
