"""Answering of the texts of a call, and reading of its JSON, for all protocols."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from fastapi import Request

from mobile_client.options import RequestOptions
from mobile_client.service import MobileService
from shared.errors import DimeeError, Forbidden, InvalidInput, NotFound, TooLarge
from shared.field_types import refused_character
from shared.text import check_inputs
from shared.wire import BundleDescription, Classification

Pairs = list[str] | None
Answer = Callable[
    [Request, list[str], Pairs, RequestOptions], Awaitable[list[Classification | DimeeError]]
]
"""Function that answers the texts of a call as ``POST /v1/classify`` does."""


@dataclass(frozen=True, slots=True)
class FieldNames:
    """Names that a protocol's fields have in error messages."""

    texts: str
    pairs: str


@dataclass(frozen=True, slots=True)
class ProtocolCalls:
    """The gateway's service as a protocol sees it.

    ``check_ready`` raises `NotReady` before the gateway serves, and while it cannot record.
    """

    mobile: MobileService
    description: BundleDescription
    answer: Answer
    check_ready: Callable[[], object]

    @property
    def model(self) -> str:
        """Name of the model in answers: the task of the bundle."""
        return self.description.task

    def check_model(self, name: str) -> None:
        """Raise `NotFound` unless ``name`` is one of `model_names`."""
        if name not in model_names(self.description):
            raise NotFound(f"model: {name[:64]!r} is not served; use {self.model!r}", field="model")

    async def classify(
        self,
        message: Request,
        texts: list[str],
        pairs: Pairs,
        options: RequestOptions,
        names: FieldNames,
        truncate: bool = True,
    ) -> list[Classification]:
        """Return the answer of every text.

        Raises the first error of a text: unlike ``/v1/classify``, no other protocol has errors of
        single texts. ``truncate`` is False if a text that is longer than the model reads is an
        error.
        """
        refuse_other_sites(message)
        try:
            if not truncate:
                await self._refuse_long(texts, pairs)
            outcomes = await self.answer(message, texts, pairs, options)
        except InvalidInput as error:
            _raise_renamed(error, names)
        answers: list[Classification] = []
        for i, outcome in enumerate(outcomes):
            if isinstance(outcome, DimeeError):
                if len(outcomes) > 1:
                    outcome = _with_message(outcome, f"{names.texts}.{i}: {outcome.message}")
                raise outcome
            answers.append(outcome)
        return answers

    async def _refuse_long(self, texts: list[str], pairs: Pairs) -> None:
        """Raise `TooLarge` if the model does not read the whole of a text."""
        rows = check_inputs(texts, pairs, self.description.pairs, self.description.task)
        longest = self.mobile.runtime.bundle.manifest.max_tokens
        for i, (text, pair) in enumerate(rows):
            if await self.mobile.runtime.is_truncated(text, pair):
                field = f"texts.{i}"
                raise TooLarge(
                    f"{field}: has more than the {longest} tokens that the model reads; shorten it "
                    "or leave out truncate=false",
                    field=field,
                    limit=longest,
                )


def _raise_renamed(error: InvalidInput, names: FieldNames) -> NoReturn:
    """Raise ``error`` with the protocol's name of the field."""
    field = error.field or ""
    for ours, theirs in (("texts", names.texts), ("pairs", names.pairs)):
        if field == ours or field.startswith(f"{ours}."):
            message = error.message.replace(ours, theirs, 1)
            raise _with_message(error, message, theirs + field.removeprefix(ours)) from None
    raise error


def _with_message(error: DimeeError, message: str, field: str | None = None) -> DimeeError:
    return type(error)(
        message,
        field=field or error.field,
        limit=error.limit,
        retry_after_s=error.retry_after_s,
    )


def refuse_other_sites(message: Request) -> None:
    """Raise `Forbidden` for a call that a browser made for a page of another site.

    Browsers make a call with JSON only if the gateway allows it, which it does not. They send any
    page's form or plain text, which these protocols accept, because some clients name no type.
    """
    origin, kind = message.headers.get("origin"), message.headers.get("content-type", "")
    if origin is None or kind.partition(";")[0].strip().lower() == "application/json":
        return
    if origin.partition("://")[2] != message.headers.get("host"):
        raise Forbidden("a page of another site made this call; send it as application/json")


def model_names(description: BundleDescription) -> tuple[str, str]:
    """Return the names of the only model: the task of the bundle, and the bundle's identifier."""
    return description.task, description.bundle_id


def json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in ``body``; raise `InvalidInput` if it is none.

    NaN and infinity, which are no JSON, are refused.
    """
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise InvalidInput("body: is not valid JSON", field="body") from None
    if not isinstance(value, dict):
        raise InvalidInput("body: must be a JSON object", field="body")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def take_object(body: dict[str, Any], name: str) -> dict[str, Any]:
    """Remove the field ``name`` from ``body`` and return it; an empty object if it has none."""
    value = body.pop(name, None)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput(f"{name}: must be an object", field=name)
    return dict(value)


def take_boolean(values: dict[str, Any], name: str) -> bool | None:
    """Remove ``name`` from ``values`` and return it; None if it is absent or null."""
    value = values.pop(name, None)
    if value is not None and not isinstance(value, bool):
        raise InvalidInput(f"{name}: must be true or false", field=name)
    return value


def take_identifier(body: dict[str, Any], field: str, longest: int) -> str | None:
    """Remove an identifier, which the answer repeats, from ``body`` and return it."""
    value = body.pop(field, None)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > longest:
        raise InvalidInput(
            f"{field}: must be a string of at most {longest} characters", field=field
        )
    if refused := refused_character(value):
        raise InvalidInput(f"{field}: holds {refused}; send valid Unicode without it", field=field)
    return value


def no_logits(field: str) -> InvalidInput:
    """Return the error for a parameter that asks for scores other than probabilities."""
    return InvalidInput(
        f"{field}: only softmax is available, because the tiers return probabilities and no "
        "logits; leave it out",
        field=field,
    )


def ranked(answer: Classification, top_k: int | None = None) -> list[dict[str, Any]]:
    """Return ``{label, score}`` of the ``top_k`` most probable labels, or of all."""
    rows = sorted(answer.probabilities.items(), key=lambda row: -row[1])
    return [{"label": label, "score": score} for label, score in rows[:top_k]]


def texts_body(
    field: str, example: str | list[str], other_fields: dict[str, Any]
) -> dict[str, Any]:
    """Return the OpenAPI description of a body with one or several texts in ``field``."""
    text = {"type": "string", "minLength": 1}
    texts = {"anyOf": [text, {"type": "array", "items": text, "minItems": 1}]}
    schema = {"type": "object", "required": [field], "properties": {field: texts} | other_fields}
    content = {"schema": schema, "example": {field: example}}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}
