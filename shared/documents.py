"""JSON documents with a fixed form: the manifest of a bundle, price books and certificates."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from shared.user_files import other_encoding
from shared.validation import first_error

ModelT = TypeVar("ModelT", bound=BaseModel)


def parse_document(raw: bytes, kind: type[ModelT]) -> ModelT:
    """Return the document in ``raw``, UTF-8 with or without a byte-order mark.

    Raises `ValueError` with the wrong field and what is wrong with it, in one line. A name that an
    object has twice is an error, because readers disagree on which of its values counts. So is a
    boolean or a string in the place of a number.
    """
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        json.loads(raw.decode(), object_pairs_hook=_object_without_repetition)
        return kind.model_validate_json(raw, strict=True)
    except ValidationError as error:
        field, problem = first_error(error, whole="content")
        raise ValueError(f"{field}: {problem}") from None
    except UnicodeDecodeError:
        encoding = other_encoding(raw)
        problem = f"is {encoding}" if encoding else "is not UTF-8"
        raise ValueError(f"content: {problem}; save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"content: invalid JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from None
    except RecursionError:
        raise ValueError("content: is nested too deep") from None
    except _RepeatedNameError as error:
        raise ValueError(f"{error}: is there twice; leave out one of the two") from None
    except ValueError:  # Python refuses to read numbers of thousands of digits
        raise ValueError("content: a number has too many digits") from None


class _RepeatedNameError(ValueError):
    """A name that an object has twice."""


def _object_without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise _RepeatedNameError(repr(repeated[:100]))
    return found
