"""Classification of numbered rows, some of which may be wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mobile_client.client import MobileClient
from shared.errors import DimeeError, InvalidInput
from shared.text_files import NumberedRow
from shared.wire import Classification

_ROW = re.compile(r"(?:texts|pairs)\[(\d+)\]")


def classify_rows(
    mobile: MobileClient, rows: Sequence[NumberedRow]
) -> list[Classification | DimeeError]:
    """Return an outcome for each row, in order; a wrong row has an error and stops no other."""
    outcomes: list[Classification | DimeeError | None] = [row.error for row in rows]
    left = [number for number, row in enumerate(rows) if row.row is not None]
    while left:
        inputs = [row.row for number in left if (row := rows[number]).row is not None]
        pairs = [text.pair for text in inputs if text.pair is not None]
        try:
            answers = mobile.classify_many([text.text for text in inputs], pairs or None)
        except InvalidInput as error:
            # the mobile checks all texts before it makes a request, and names the first wrong one
            match = _ROW.fullmatch(error.field or "")
            if match is None:
                raise
            number = left.pop(int(match[1]))
            message = f"{rows[number].place}: {_ROW.sub('text', error.message, count=1)}"
            outcomes[number] = type(error)(message, field="text", limit=error.limit)
            continue
        for number, answer in zip(left, answers, strict=True):
            outcomes[number] = answer
        break
    return [outcome for outcome in outcomes if outcome is not None]
