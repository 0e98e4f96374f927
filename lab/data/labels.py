"""Labels of a task: their order, and the names that are allowed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from shared.errors import InvalidInput
from shared.field_types import MAX_LABEL_CHARS
from shared.labels import is_whole_number

MIN_LABELS, MAX_LABELS = 2, 1_000
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)
"""Control characters, line ends, spaces of no width, changes of the text direction, surrogates."""


def ordered_labels(names: Iterable[str]) -> tuple[str, ...]:
    """Return the different names: whole numbers in numeric order, or else sorted as strings."""
    different = set(names)
    if all(is_whole_number(name) for name in different):
        return tuple(sorted(different, key=lambda name: (int(name), name)))
    return tuple(sorted(different))


def check_labels(labels: Sequence[str]) -> None:
    """Raise `InvalidInput` unless these are 2 to 1,000 different names that can be printed."""
    if len(labels) < MIN_LABELS:
        only = f"only the label {labels[0]!r}" if labels else "no label"
        raise InvalidInput(f"labels: there is {only}; a classifier needs at least {MIN_LABELS}")
    if len(labels) > MAX_LABELS:
        raise InvalidInput(
            f"labels: {len(labels):,} different ones are more than the {MAX_LABELS:,} allowed; "
            "choose another --label-field, or merge classes"
        )
    seen: set[str] = set()
    for name in labels:
        if not name or name != name.strip():
            raise InvalidInput(
                f"labels: {name!r} is empty, or begins or ends with white space; remove it"
            )
        if len(name) > MAX_LABEL_CHARS:
            raise InvalidInput(
                f"labels: {name[:40]!r}… has {len(name):,} characters; shorten it to at most "
                f"{MAX_LABEL_CHARS}, or choose another --label-field"
            )
        if match := _UNPRINTABLE.search(name):
            raise InvalidInput(
                f"labels: {name!r} holds the character U+{ord(match[0]):04X}, which cannot be "
                "printed; remove it"
            )
        if (composed := unicodedata.normalize("NFC", name)) in seen:
            raise InvalidInput(
                f"labels: {name!r} is given twice (perhaps as different code points that look "
                "alike); give each label once"
            )
        seen.add(composed)
