"""Tokenizer for texts and pairs of texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from shared.errors import BundleError, InvalidInput
from shared.short_line import short_line


@dataclass(frozen=True, slots=True)
class EncodedText:
    """Token ids of one text or pair, special tokens included.

    ``type_ids_T`` is 1 for the second text and the separator after it, and 0 for the rest.
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
    """Tokenizer of a run or a bundle, the same in training and in serving. Thread-safe.

    Longer inputs are cut to ``max_tokens`` at the end, of a pair the longer text first. Control
    tokens that a text contains literally, such as ``[SEP]``, are text like any other.
    """

    def __init__(self, tokenizer_file: Path, max_tokens: int) -> None:
        try:
            self._tokenizer = _load(tokenizer_file)
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(max_tokens)
            for pair in (None, "ready"):
                self._tokenizer.encode("ready", pair)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library raises bare Exception, and panics are none
            raise BundleError(
                f"bundle: {tokenizer_file} is not a tokenizer ({short_line(str(error), 200)}); "
                "export the bundle's run again with this version of dimee"
            ) from None
        self._special = [self._tokenizer.num_special_tokens_to_add(pair) for pair in (False, True)]

    @property
    def vocabulary(self) -> int:
        """Number of tokens in the tokenizer's model, without tokens that were added to it."""
        return self._tokenizer.get_vocab_size(with_added_tokens=False)

    def encode(self, text: str, pair: str | None = None) -> EncodedText:
        """Tokenise a text or pair, truncated to the model's limit, the longer text first.

        Raises `InvalidInput` if only special tokens remain (a text of invisible characters).
        """
        encoding = self._encoding(text, pair)
        return EncodedText(
            ids_T=np.array(encoding.ids),
            type_ids_T=np.array(_segments(encoding, pair)),
            content_T=np.array(encoding.special_tokens_mask) == 0,
            truncated=bool(encoding.overflowing),
            rare_pieces=_rare_pieces(encoding),
            second_T=None if pair is None else np.array(encoding.sequence_ids) == 1,
        )

    def ids(self, text: str, pair: str | None = None) -> TokenIds:
        """Return only the token ids, which suffice without routing; raises as `encode`."""
        encoding = self._encoding(text, pair)
        return TokenIds(encoding.ids, _segments(encoding, pair), bool(encoding.overflowing))

    def _encoding(self, text: str, pair: str | None) -> Any:
        encoding = self._tokenizer.encode(text, pair)
        if len(encoding) <= self._special[pair is not None]:
            raise InvalidInput(
                "text: contains no character that the model knows; give at least 1 word",
                field="text",
            )
        return encoding


def _load(file: Path) -> Tokenizer:
    """Load a tokenizer that never turns a text into control tokens."""
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.encode_special_tokens = True
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    # Unigram models, and others that do not split at punctuation, find the tokens as pieces
    if any(tokenizer.token_to_id(name) in _content_ids(tokenizer, name) for name in special):
        tokenizer = Tokenizer.from_str(_without_control_pieces(file.read_text(encoding="utf-8")))
        tokenizer.encode_special_tokens = True
    return tokenizer


def _content_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _without_control_pieces(content: str) -> str:
    """Rename the control tokens in the model of a ``tokenizer.json``; their ids stay.

    The new names begin with U+0000, which no text contains. The post-processor, which puts these
    tokens around the texts, has their ids. The token for unknown words keeps its name.
    """
    facts = json.loads(content)
    model = facts["model"]
    vocabulary = model["vocab"]
    unknown = model.get("unk_token")
    if model.get("unk_id") is not None:
        unknown = vocabulary[model["unk_id"]][0]
    special = [token for token in facts["added_tokens"] if token["special"]]
    control = {token["content"] for token in special} - {unknown}

    def renamed(piece: str) -> str:
        return f"\0{piece}" if piece in control else piece

    for token in special:
        token["content"] = renamed(token["content"])
    if isinstance(vocabulary, dict):
        model["vocab"] = {renamed(piece): number for piece, number in vocabulary.items()}
    else:
        model["vocab"] = [[renamed(piece), score] for piece, score in vocabulary]
    if "merges" in model:
        merges = [two.split(" ") if isinstance(two, str) else two for two in model["merges"]]
        model["merges"] = [two for two in merges if control.isdisjoint({*two, "".join(two)})]
    return json.dumps(facts)


def _segments(encoding: Any, pair: str | None) -> list[int]:
    """Return 0 for the tokens of the first text and 1 for those of the second one.

    Separators belong to the text before them. The post-processors of some tokenizers give zeros
    for pairs, although their encoder was trained with segments.
    """
    if pair is None:
        return [0] * len(encoding)
    sequences = encoding.sequence_ids
    start = sequences.index(1) if 1 in sequences else len(sequences) - 1
    return [0] * start + [1] * (len(sequences) - start)


def _rare_pieces(encoding: Any) -> int:
    words = [
        (sequence, word)
        for sequence, word in zip(encoding.sequence_ids, encoding.word_ids, strict=True)
        if word is not None
    ]
    return len(words) - len(set(words))
