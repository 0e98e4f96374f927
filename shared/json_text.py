"""JSON that a user wrote."""

from __future__ import annotations

import json


def parse_json(text: str) -> object:
    """Return the value of a JSON text.

    Raises `ValueError` with the reason in a few words, also for values that Python's parser cannot
    hold: arrays in arrays a thousand times, and numbers of thousands of digits.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(error.msg) from None
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except ValueError:
        raise ValueError("a number has too many digits") from None
