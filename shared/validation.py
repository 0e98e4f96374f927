"""Converts pydantic's validation errors into one sentence about the first of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from shared.errors import DimeeError, InvalidInput, TooLarge
from shared.field_types import WITHOUT_NUL
from shared.short_line import short_line

_LIMITS = ("le", "lt", "ge", "gt", "max_length", "min_length")


def first_error(error: ValidationError, whole: str) -> tuple[str, str]:
    """Return the field of the first error, dotted, and what is wrong with it.

    ``whole`` is the field's name for an error that concerns the input as a whole. The result
    contains no input. Example: ``("entries.0.side", "field required")``.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or whole
    message = _message(first).removeprefix("Value error, ")  # before the message of a validator
    return short_line(field, 100), uncapitalised(short_line(message, 300))


def uncapitalised(message: str) -> str:
    """Return ``message`` with its first letter in lower case, for use after a colon."""
    return f"{message[:1].lower()}{message[1:]}"


def _message(problem: Mapping[str, Any]) -> str:
    if problem.get("ctx", {}).get("pattern") == WITHOUT_NUL:
        return "must not hold the character U+0000"
    return str(problem["msg"])


def request_error(problem: Mapping[str, Any]) -> DimeeError:
    """Return the error for one entry of pydantic's ``errors()`` about a request's body."""
    if problem["type"] == "json_invalid":
        return InvalidInput("body: is not valid JSON", field="body")
    place = [str(part) for part in problem["loc"]] or ["body"]
    field = ".".join(part for part in place if part not in ("body", "query")) or place[0]
    context = problem.get("ctx", {})
    limit = next((context[name] for name in _LIMITS if name in context), None)
    if problem["type"] == "extra_forbidden":
        message = f"{field}: is not a known field; leave it out"
    elif problem["type"] == "missing":
        message = f"{field}: is missing"
    else:
        message = f"{field}: {uncapitalised(_message(problem).removeprefix('Value error, '))}"
    kind = TooLarge if problem["type"] == "too_long" else InvalidInput
    number = limit if isinstance(limit, int | float) else None
    return kind(short_line(message, 300), field=short_line(field, 100), limit=number)
