"""``POST /classify`` of vLLM and of infinity.

Both send ``{"model", "input"}`` to the same path and read different answers. infinity's client
always sends ``raw_scores``, and vLLM knows no such field, so a body with it gets infinity's answer.
``/infinity/classify`` always gives it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from mobile_client.gateway.protocols.calls import (
    FieldNames,
    ProtocolCalls,
    json_object,
    model_names,
    no_logits,
    ranked,
    take_boolean,
    take_identifier,
    texts_body,
)
from mobile_client.gateway.protocols.request_options import (
    answer_headers,
    options_of,
    refuse_unknown,
)
from shared.errors import InvalidInput
from shared.wire import Classification

CLASSIFY = "/classify"
INFINITY = "/infinity/classify"
PATHS = frozenset({CLASSIFY, INFINITY})
MODEL_LISTS = ("/v1/models", "/infinity/models")
MAX_ID_CHARS = 64
_UNNAMED = "default/not-specified"
"""Model of a call of infinity's client that names none."""
_ACTIVATIONS = ("use_activation", "activation", "softmax")
_NAMES = FieldNames("input", "input")


def read_input(value: Any) -> list[str]:
    """Return the texts of ``input``; raise `InvalidInput` for tokens and other values."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
        raise InvalidInput(
            "input: must be a text or a list of texts; token identifiers are not supported",
            field="input",
        )
    return texts


def infinity_answer(model: str, answers: list[Classification]) -> dict[str, Any]:
    """Return the answer that infinity gives: label and score of every class, for each text."""
    return {
        "object": "classify",
        "data": [ranked(answer) for answer in answers],
        "model": model,
        "usage": _usage(answers),
        "id": f"infinity-{answers[0].request_id}",
        "created": int(time.time()),
    }


def vllm_answer(
    model: str, answers: list[Classification], labels: list[str], identifier: str | None
) -> dict[str, Any]:
    """Return the answer that vLLM gives: the label, and the probabilities in order of labels."""
    return {
        "id": f"classify-{identifier or answers[0].request_id}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [
            {
                "index": i,
                "label": answer.label,
                "probs": [answer.probabilities[label] for label in labels],
                "num_classes": len(labels),
            }
            for i, answer in enumerate(answers)
        ],
        "usage": _usage(answers) | {"completion_tokens": 0, "prompt_tokens_details": None},
    }


def _usage(answers: list[Classification]) -> dict[str, Any]:
    tokens = sum(answer.tokens for answer in answers)
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def install_classify(app: FastAPI, calls: ProtocolCalls) -> None:
    """Add the endpoints of both protocols."""
    labels = calls.description.labels

    async def classify(message: Request, always_infinity: bool) -> Response:
        body = json_object(await message.body())
        infinity = always_infinity or "raw_scores" in body
        identifier = None if infinity else _take_vllm_fields(body, calls)
        if take_boolean(body, "raw_scores"):
            raise no_logits("raw_scores")
        _check_model(calls, body.pop("model", None))
        options = options_of(message.headers, body)
        texts = read_input(body.pop("input", None))
        refuse_unknown(body)
        answers = await calls.classify(message, texts, None, options, _NAMES)
        content = (
            infinity_answer(calls.model, answers)
            if infinity
            else vllm_answer(calls.model, answers, labels, identifier)
        )
        return JSONResponse(content, headers=answer_headers(answers))

    body = texts_body("input", ["a gripping, funny film"], {"model": {"type": "string"}})
    documented: dict[str, Any] = {"openapi_extra": body, "response_class": JSONResponse}

    @app.post(CLASSIFY, tags=["vLLM"], **documented)
    async def vllm(message: Request) -> Response:
        """Answer as vLLM; with ``raw_scores`` in the body, as infinity."""
        return await classify(message, always_infinity=False)

    @app.post(INFINITY, tags=["infinity"], **documented)
    async def infinity(message: Request) -> Response:
        """Answer as infinity."""
        return await classify(message, always_infinity=True)

    async def models() -> dict[str, Any]:
        """Return the only model, in the shape of OpenAI's list."""
        model = {"id": calls.model, "object": "model", "created": 0, "owned_by": "dimee"}
        limits = {"max_model_len": calls.mobile.runtime.bundle.manifest.max_tokens}
        infinity = {"backend": "onnxruntime", "capabilities": ["classify"], "stats": {}}
        return {"object": "list", "data": [model | limits | infinity]}

    for path, tag in zip(MODEL_LISTS, ("vLLM", "infinity"), strict=True):
        route: Callable[[Any], Any] = app.get(path, tags=[tag])
        route(models)


def _take_vllm_fields(body: dict[str, Any], calls: ProtocolCalls) -> str | None:
    """Remove vLLM's fields from ``body``, and return its request's identifier.

    Raises `InvalidInput` for a value that changes the answer in a way that no tier can.
    """
    if "messages" in body:
        raise InvalidInput("messages: is not supported; send input", field="messages")
    for name in _ACTIVATIONS:
        if take_boolean(body, name) is False:
            raise no_logits(name)
    if take_boolean(body, "add_special_tokens") is False:
        raise InvalidInput("add_special_tokens: only true is supported", field="add_special_tokens")
    longest = calls.mobile.runtime.bundle.manifest.max_tokens
    if body.pop("truncate_prompt_tokens", None) not in (None, -1, longest):
        raise InvalidInput(
            f"truncate_prompt_tokens: must be {longest}, the most tokens that the model reads, -1, "
            "which means the same, or be left out",
            field="truncate_prompt_tokens",
            limit=longest,
        )
    body.pop("user", None)
    return take_identifier(body, "request_id", MAX_ID_CHARS)


def _check_model(calls: ProtocolCalls, name: Any) -> None:
    if name is None or name == _UNNAMED:
        return
    if not isinstance(name, str):
        names = " or ".join(model_names(calls.description))
        raise InvalidInput(f"model: must be {names}, or be left out", field="model")
    calls.check_model(name)
