"""Field types: one definition of the length, the characters and the range of each field.

Bundle, price book, certificate, settings, HTTP requests and answers, ledger entries, import and SDK
use these types, so that a value which one of them accepts is accepted by all of them. The ledger's
columns (`shared.ledger.server.tables`) have the same lengths. `tests/laws/test_fields.py` compares
them.

No string holds U+0000, which PostgreSQL cannot store, or a lone surrogate, which pydantic refuses.
No number is NaN or infinite.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

MAX_WORD_CHARS = 64
MAX_LABEL_CHARS = 256
MAX_NOTE_CHARS = 2_000
MIN_DEADLINE_MS = 1
MAX_DEADLINE_MS = 60_000
MAX_COST_LAMBDA = 1e6
MAX_PRICE = 1e9
WITHOUT_NUL = r"^[^\x00]*$"

Identifier = Annotated[
    str, Field(min_length=1, max_length=MAX_WORD_CHARS, pattern=r"^[A-Za-z0-9_.:-]+$")
]
"""Identifier of a request or an attempt."""
Word = Annotated[str, Field(max_length=MAX_WORD_CHARS, pattern=WITHOUT_NUL)]
"""Name of a policy, a writer or an error's code; may be empty."""
Name = Annotated[str, Field(min_length=1, max_length=MAX_WORD_CHARS, pattern=WITHOUT_NUL)]
"""Name or version that is never empty: of a task, a bundle, a price book."""
PrincipalName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
"""Name of a token's owner."""
ReplicaName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
"""Name of one of the processes that serve a tier."""
Label = Annotated[str, Field(min_length=1, max_length=MAX_LABEL_CHARS, pattern=WITHOUT_NUL)]
Labels = Annotated[tuple[Label, ...], Field(min_length=2, max_length=1000)]
FreeText = Annotated[str, Field(max_length=MAX_NOTE_CHARS, pattern=WITHOUT_NUL)]
"""Free text, and JSON of that length."""
TraceId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
"""Identifier of a W3C trace."""
SpanId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
"""Identifier of a span in a trace."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ShortSha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
"""First 16 digits of a SHA-256: identifier of a bundle or a certificate."""

Count = Annotated[int, Field(ge=0, le=2**53)]
"""Number of bytes, tokens, characters or samples."""
Ordinal = Annotated[int, Field(ge=1, le=1000)]
"""Number of an attempt in its request."""
Layer = Annotated[int, Field(ge=1, le=1000)]
"""Number of a layer, or of layers."""

Duration = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
"""Duration in milliseconds; the largest is 31 years."""
Timestamp = Annotated[float, Field(ge=0, le=253_402_300_799, allow_inf_nan=False)]
"""Time in seconds since 1970, until the end of the year 9999."""
DeadlineMs = Annotated[float, Field(ge=MIN_DEADLINE_MS, le=MAX_DEADLINE_MS, allow_inf_nan=False)]
"""Deadline of a request in milliseconds."""
TimeLeftMs = Annotated[float, Field(gt=0, le=MAX_DEADLINE_MS, allow_inf_nan=False)]
"""Time that a request's deadline leaves to an attempt, in milliseconds."""
Price = Annotated[float, Field(ge=0, le=MAX_PRICE, allow_inf_nan=False)]
"""Price in λ, money or energy, for one layer, hour, byte and so on."""
WaitingPrice = Annotated[float, Field(ge=0, le=MAX_COST_LAMBDA, allow_inf_nan=False)]
"""Price of waiting one millisecond, in λ."""
Amount = Annotated[float, Field(ge=0, le=1e20, allow_inf_nan=False)]
"""Cost or energy of an attempt; no product of a `Price` with a `Duration` or a `Count` exceeds the
largest, and sums of a billion of the largest are finite."""
CostCeiling = Annotated[float, Field(gt=0, le=MAX_COST_LAMBDA, allow_inf_nan=False)]
"""Most that the attempts of a request may cost together, in λ."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""Share, probability or confidence."""
Alpha = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
"""Exit threshold α."""

_REFUSED = re.compile(r"[\x00\ud800-\udfff]")


def refused_character(text: str) -> str | None:
    """Return a description of the first character that no text may hold, or None.

    Such characters are U+0000 and lone surrogates, in training data and in requests alike. Other
    control characters are text, which the tokenizer of the encoder handles.
    """
    match = _REFUSED.search(text)
    if match is None:
        return None
    kind = "the character U+0000" if match[0] == "\0" else "a lone surrogate"
    return f"{kind} at character {match.start() + 1}"


def is_boolean(value: object) -> bool:
    """Return whether ``value`` is a boolean of Python or numpy; no number field accepts one."""
    return type(value).__name__ in ("bool", "bool_")
