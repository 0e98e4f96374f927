"""Checks of a call's texts, before any request is made."""

from __future__ import annotations

from shared.errors import InvalidInput, TooLarge
from shared.field_types import refused_character
from shared.wire import MAX_TEXT_CHARS, MAX_TEXTS


def check_text(text: object, field: str = "text") -> str:
    """Return ``text`` if it can be classified.

    Raises `TooLarge` for more than `MAX_TEXT_CHARS` characters. Raises `InvalidInput` for a value
    that is not a string, and for a string of white space only or with a `refused_character`.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"{field}: must be a string, not {type(text).__name__}", field=field)
    if len(text) > MAX_TEXT_CHARS:
        raise TooLarge(
            f"{field}: {len(text):,} characters; at most {MAX_TEXT_CHARS:,} are allowed",
            field=field,
            limit=MAX_TEXT_CHARS,
        )
    if not text.strip():
        raise InvalidInput(
            f"{field}: is empty; give at least 1 character that is not white space",
            field=field,
            limit=1,
        )
    if refused := refused_character(text):
        raise InvalidInput(f"{field}: holds {refused}; send valid Unicode without it", field=field)
    return text


def check_inputs(
    texts: list[str], pairs: list[str] | None, task_has_pairs: bool, task: str
) -> list[tuple[str, str | None]]:
    """Return the texts of a call with their pairs; an error names the first wrong ``texts.i``."""
    if not isinstance(texts, list | tuple):
        raise InvalidInput(f"texts: must be a list, not {type(texts).__name__}", field="texts")
    if not texts:
        raise InvalidInput("texts: is empty; give 1 text at least", field="texts", limit=1)
    if len(texts) > MAX_TEXTS:
        raise TooLarge(
            f"texts: {len(texts):,} at once; at most {MAX_TEXTS:,} are allowed",
            field="texts",
            limit=MAX_TEXTS,
        )
    if pairs is not None and not isinstance(pairs, list | tuple):
        raise InvalidInput(f"pairs: must be a list, not {type(pairs).__name__}", field="pairs")
    if pairs is None and task_has_pairs:
        raise InvalidInput(
            f"pairs: the task {task} needs a second text for each text", field="pairs"
        )
    if pairs is not None and not task_has_pairs:
        raise InvalidInput(f"pairs: the task {task} uses none; leave them out", field="pairs")
    if pairs is not None and len(pairs) != len(texts):
        raise InvalidInput(
            f"pairs: {len(pairs)} for {len(texts)} texts; give one for each text",
            field="pairs",
            limit=len(texts),
        )
    checked = [check_text(text, f"texts.{i}") for i, text in enumerate(texts)]
    if pairs is None:
        return [(text, None) for text in checked]
    return [
        (text, check_text(pair, f"pairs.{i}"))
        for i, (text, pair) in enumerate(zip(checked, pairs, strict=True))
    ]
