"""Labels as files hold them: their names, or their numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from shared.errors import InvalidInput

SHOWN = 8
_WHOLE_NUMBER = re.compile(r"-?[0-9]+")


def label_name(value: object) -> str:
    """Return the name of a label as the data give it: ``"3"`` for 3, 3.0 and ``" 3 "``.

    Booleans become ``true`` and ``false``, and a missing label the empty string. Raises
    `ValueError` for other types and for numbers that are not whole.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    if isinstance(value, float):
        if value != value:  # NaN is how Parquet files of pandas write a missing number
            return ""
        raise ValueError("a number that is not whole; write classes as strings or whole numbers")
    raise ValueError("neither a string nor a number; write each label as one of the two")


def is_whole_number(name: str) -> bool:
    """Return whether the name of a label is a whole number like ``3`` or ``-1``."""
    return _WHOLE_NUMBER.fullmatch(name) is not None


@lru_cache(maxsize=16)
def label_indices(labels: tuple[str, ...]) -> dict[str, int]:
    """Return the index of each label, by its name and by its number from 0.

    If a label is itself a whole number, labels have no numbers.
    """
    indices = {name: index for index, name in enumerate(labels)}
    if are_numbered(labels):
        indices |= {str(index): index for index in range(len(labels))}
    return indices


def are_numbered(labels: Sequence[str]) -> bool:
    """Return whether data may have the numbers of the labels: no label is a whole number."""
    return not any(map(is_whole_number, labels))


def counted(number: int, noun: str) -> str:
    """Return a number with its noun for a message: ``1 request``, ``2,000 requests``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def listed(names: Sequence[str]) -> str:
    """Return the names for a message, at most `SHOWN` of them."""
    text = ", ".join(names[:SHOWN])
    return f"{text} and {len(names) - SHOWN:,} more" if len(names) > SHOWN else text


def find_label(value: object, labels: Sequence[str]) -> str | None:
    """Return the one of ``labels`` that ``value`` stands for; None if the value is missing.

    A value is a name, or a number from 0 if no label is itself a whole number. Raises
    `InvalidInput` for other values.
    """
    try:
        name = label_name(value)
    except ValueError as error:
        raise InvalidInput(f"has a label that is {error}") from None
    if not name:
        return None
    index = label_indices(tuple(labels)).get(name)
    if index is not None:
        return labels[index]
    raise InvalidInput(
        f"has the label {name[:100]!r}, which is none of the bundle's ({listed(labels)}); give one "
        "of these names" + (", or its number from 0" if are_numbered(labels) else "")
    )
