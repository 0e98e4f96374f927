"""The first validation error as one sentence."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from shared.errors import InvalidInput, TooLarge
from shared.validation import first_error, request_error


class Inner(BaseModel):
    number: int


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")

    items: list[Inner] = []

    @model_validator(mode="after")
    def _not_empty(self) -> Model:
        if not self.items:
            raise ValueError("is empty")
        return self


@pytest.mark.parametrize(
    ("value", "field", "problem"),
    [
        ({"items": [{"number": "private"}]}, "items.0.number", "input should be a valid integer"),
        ({}, "content", "is empty"),
    ],
)
def test_first_error_names_the_field_and_not_the_input(
    value: object, field: str, problem: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate(value)
    found = first_error(caught.value, whole="content")
    assert found[0] == field
    assert found[1].startswith(problem)
    assert "private" not in found[1]


def test_request_error_has_class_field_and_limit() -> None:
    missing = request_error({"type": "missing", "loc": ("body", "text"), "msg": ""})
    assert (missing.message, missing.field) == ("text: is missing", "text")
    too_long = request_error(
        {
            "type": "too_long",
            "loc": ("body", "entries"),
            "msg": "List is too long",
            "ctx": {"max_length": 3},
        }
    )
    assert isinstance(too_long, TooLarge)
    assert too_long.limit == 3
    assert too_long.message == "entries: list is too long"
    broken = request_error({"type": "json_invalid", "loc": ("body", 3), "msg": "private"})
    assert type(broken) is InvalidInput
    assert broken.message == "body: is not valid JSON"
