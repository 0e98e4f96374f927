"""Text to token ids, with truncation reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from shared.errors import BundleError, InvalidInput


@dataclass(frozen=True, slots=True)
class EncodedText:
    """Token ids of one text or pair, special tokens included; ``content_T`` marks the others.

    ``rare_pieces`` counts the pieces that go on with a word: common words are one piece.
    ``second_T`` marks the second text's own tokens; None for a single text.
    """

    ids_T: NDArray[np.int64]
    type_ids_T: NDArray[np.int64]
    content_T: NDArray[np.bool_]
    truncated: bool
    rare_pieces: int = 0
    second_T: NDArray[np.bool_] | None = None

    @property
    def tokens(self) -> int:
        """T, special tokens included."""
        return len(self.ids_T)

    def __len__(self) -> int:
        """T."""
        return len(self.ids_T)


@dataclass(frozen=True, slots=True)
class TokenIds:
    """What the layers need of a text or pair, and no more: cheap to make, and to send."""

    ids_T: Sequence[int]
    type_ids_T: Sequence[int]
    truncated: bool

    def __len__(self) -> int:
        """T."""
        return len(self.ids_T)

    def __reduce__(self) -> tuple[type[TokenIds], tuple[Sequence[int], Sequence[int], bool]]:
        return TokenIds, (self.ids_T, self.type_ids_T, self.truncated)


class TextEncoder:
    """The encoder's own tokenizer; thread-safe."""

    def __init__(self, tokenizer_file: Path, max_tokens: int) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise BundleError(f"bundle: {tokenizer_file} is not a tokenizer: {error}") from None
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._special = [self._tokenizer.num_special_tokens_to_add(pair) for pair in (False, True)]

    def encode(self, text: str, pair: str | None = None) -> EncodedText:
        """Tokenise and cut at the model's limit, longest text first.

        Raises `InvalidInput` where nothing is left to look up (invisible characters only).
        """
        encoding = self._encoding(text, pair)
        return EncodedText(
            ids_T=np.array(encoding.ids),
            type_ids_T=np.array(encoding.type_ids),
            content_T=np.array(encoding.special_tokens_mask) == 0,
            truncated=bool(encoding.overflowing),
            rare_pieces=_rare_pieces(encoding),
            second_T=None if pair is None else np.array(encoding.sequence_ids) == 1,
        )

    def ids(self, text: str, pair: str | None = None) -> TokenIds:
        """The tokens of `encode` alone, for who runs layers and routes nothing; raises the same."""
        encoding = self._encoding(text, pair)
        return TokenIds(encoding.ids, encoding.type_ids, bool(encoding.overflowing))

    def _encoding(self, text: str, pair: str | None) -> Any:
        encoding = self._tokenizer.encode(text, pair)
        if len(encoding) <= self._special[pair is not None]:
            raise InvalidInput(
                "text: holds no character that the model knows; give at least 1 word", field="text"
            )
        return encoding


def _rare_pieces(encoding: Any) -> int:
    words = [
        (sequence, word)
        for sequence, word in zip(encoding.sequence_ids, encoding.word_ids, strict=True)
        if word is not None
    ]
    return len(words) - len(set(words))
