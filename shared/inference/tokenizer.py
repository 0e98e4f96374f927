"""Tokenizer for texts and pairs of texts."""

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
    """Token ids of one text or pair, special tokens included.

    ``content_T`` marks the tokens that are not special. ``rare_pieces`` counts the word pieces
    after the first one of a word; common words are a single piece. ``second_T`` marks the second
    text's own tokens and is None for a single text.
    """

    ids_T: NDArray[np.int64]
    type_ids_T: NDArray[np.int64]
    content_T: NDArray[np.bool_]
    truncated: bool
    rare_pieces: int = 0
    second_T: NDArray[np.bool_] | None = None

    @property
    def tokens(self) -> int:
        """Number of tokens T, special tokens included."""
        return len(self.ids_T)

    def __len__(self) -> int:
        """Return the number of tokens T."""
        return len(self.ids_T)


@dataclass(frozen=True, slots=True)
class TokenIds:
    """The part of `EncodedText` that the layers need; cheap to create and to pickle."""

    ids_T: Sequence[int]
    type_ids_T: Sequence[int]
    truncated: bool

    def __len__(self) -> int:
        """Return the number of tokens T."""
        return len(self.ids_T)

    def __reduce__(self) -> tuple[type[TokenIds], tuple[Sequence[int], Sequence[int], bool]]:
        return TokenIds, (self.ids_T, self.type_ids_T, self.truncated)


class TextEncoder:
    """Tokenizer of a bundle, with truncation at ``max_tokens``. Thread-safe."""

    def __init__(self, tokenizer_file: Path, max_tokens: int) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # the tokenizers library raises bare Exception
            raise BundleError(f"bundle: {tokenizer_file} is not a tokenizer: {error}") from None
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._special = [self._tokenizer.num_special_tokens_to_add(pair) for pair in (False, True)]

    def encode(self, text: str, pair: str | None = None) -> EncodedText:
        """Tokenise a text or pair, truncated to the model's limit, the longer text first.

        Raises `InvalidInput` if only special tokens remain (a text of invisible characters).
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
        """Return only the token ids, which suffice without routing; raises as `encode`."""
        encoding = self._encoding(text, pair)
        return TokenIds(encoding.ids, encoding.type_ids, bool(encoding.overflowing))

    def _encoding(self, text: str, pair: str | None) -> Any:
        encoding = self._tokenizer.encode(text, pair)
        if len(encoding) <= self._special[pair is not None]:
            raise InvalidInput(
                "text: contains no character that the model knows; give at least 1 word",
                field="text",
            )
        return encoding


def _rare_pieces(encoding: Any) -> int:
    words = [
        (sequence, word)
        for sequence, word in zip(encoding.sequence_ids, encoding.word_ids, strict=True)
        if word is not None
    ]
    return len(words) - len(set(words))
