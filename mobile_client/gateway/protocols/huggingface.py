"""Protocols of Hugging Face: the Inference API and text-embeddings-inference (TEI).

Both send ``{"inputs": …}``, and their clients read different shapes:

=================== ============================ ===============================
\\                   TEI                          Inference API
=================== ============================ ===============================
paths               ``/predict``, ``/``          ``/models/NAME``, ``/`` with
                                                 ``parameters``
``"a"``             ``[{label, score}, …]``      ``[[{label, score}, …]]``
``["a", "b"]``      one text with its pair       two texts
``[["a"], ["b"]]``  two texts                    two texts
=================== ============================ ===============================

`huggingface_hub` always sends ``parameters``, also empty, and TEI knows none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from mobile_client.gateway.protocols.calls import (
    FieldNames,
    Pairs,
    ProtocolCalls,
    json_object,
    model_names,
    no_logits,
    ranked,
    take_boolean,
    take_object,
    texts_body,
)
from mobile_client.gateway.protocols.request_options import (
    answer_headers,
    options_of,
    refuse_unknown,
)
from shared.errors import InvalidInput
from shared.wire import BundleDescription

ROOT = "/"
PREDICT = "/predict"
MODELS = "/models/"
Shape = Literal["tei", "inference-api"]
_NAMES = FieldNames("inputs", "inputs")
_FORMS = 'a text, a list of them, [text, second text], a list of [text] or of {"text", "text_pair"}'
_PAIR_FIELDS = ({"text"}, {"text", "text_pair"})
_PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "top_k": {"type": "integer", "minimum": 1},
        "function_to_apply": {"enum": ["softmax"]},
    },
}


@dataclass(frozen=True, slots=True)
class Inputs:
    """Texts of a call; ``single`` says that the answer of the only one is not in a list."""

    texts: list[str]
    pairs: Pairs
    single: bool


def read_inputs(value: Any, shape: Shape) -> Inputs:
    """Return the texts of ``inputs`` in one of the forms that clients send.

    The texts themselves are checked later. Raises `InvalidInput` for another form.
    """
    if isinstance(value, str):
        return Inputs([value], None, single=shape == "tei")
    if isinstance(value, dict):
        return _from_rows([_row(value, 0)], single=shape == "tei")
    if not isinstance(value, list) or not value:
        raise _wrong_form()
    if all(isinstance(one, str) for one in value):
        if shape == "inference-api":
            return Inputs(value, None, single=False)
        return _from_rows([_row(value, 0)], single=True)
    return _from_rows([_row(one, i) for i, one in enumerate(value)], single=False)


def _row(value: Any, index: int) -> list[str]:
    """Return a text, and its second text if it has one."""
    if isinstance(value, dict) and set(value) in _PAIR_FIELDS:
        value = [value[name] for name in ("text", "text_pair") if name in value]
    row = [value] if isinstance(value, str) else value
    strings = isinstance(row, list) and all(isinstance(one, str) for one in row)
    if not strings or len(row) not in (1, 2):
        raise _wrong_form(index)
    return list(row)


def _from_rows(rows: list[list[str]], single: bool) -> Inputs:
    with_pair = len(rows[0]) == 2
    for i, row in enumerate(rows):
        if (len(row) == 2) != with_pair:
            raise InvalidInput(
                f"inputs.{i}: some texts have a second text and others have none; give one to all "
                "or to none",
                field=f"inputs.{i}",
            )
    pairs = [row[1] for row in rows] if with_pair else None
    return Inputs([row[0] for row in rows], pairs, single)


def _wrong_form(index: int | None = None) -> InvalidInput:
    field = "inputs" if index is None else f"inputs.{index}"
    return InvalidInput(f"{field}: must be {_FORMS}", field=field)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the answer: number of labels, and whether long texts are truncated."""

    top_k: int | None
    truncate: bool


def read_parameters(body: dict[str, Any], parameters: dict[str, Any]) -> Parameters:
    """Remove the known parameters from both objects, and return them.

    Raises `InvalidInput` for one that no answer can honour.
    """
    raw = [take_boolean(body, "raw_scores"), take_boolean(parameters, "raw_scores")]
    function = parameters.pop("function_to_apply", None)
    if any(raw) or function not in (None, "softmax"):
        field = "raw_scores" if any(raw) else "function_to_apply"
        raise no_logits(field)
    truncate = True
    for values, name in ((body, "truncate"), (parameters, "truncate"), (parameters, "truncation")):
        if take_boolean(values, name) is False:
            truncate = False
    top_k, all_scores = parameters.pop("top_k", None), take_boolean(parameters, "return_all_scores")
    if top_k is None:
        top_k = 1 if all_scores is False else None
    elif isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
        raise InvalidInput("top_k: must be a number of labels, at least 1", field="top_k", limit=1)
    return Parameters(top_k, truncate)


def call_paths(description: BundleDescription) -> frozenset[str]:
    """Return the paths of the calls that classify."""
    return frozenset({ROOT, PREDICT, *(MODELS + name for name in model_names(description))})


def install_huggingface(app: FastAPI, calls: ProtocolCalls) -> None:
    """Add the endpoints of both protocols."""

    async def predict(message: Request, shape: Shape | None) -> Response:
        body = json_object(await message.body())
        shape = shape or ("inference-api" if "parameters" in body else "tei")
        parameters = take_object(body, "parameters")
        body.pop("options", None)  # of the Inference API, about its own servers
        requested = read_parameters(body, parameters)
        options = options_of(message.headers, parameters)
        if "inputs" not in body:
            raise InvalidInput("inputs: is missing", field="inputs")
        inputs = read_inputs(body.pop("inputs"), shape)
        refuse_unknown(body)
        refuse_unknown(parameters, "parameters.")
        if inputs.pairs is not None and not calls.description.pairs:
            raise InvalidInput(
                "inputs: [text, text] is one text with a second one, and the task "
                f"{calls.model} has none; send [[text], [text]] for two texts",
                field="inputs",
            )
        answers = await calls.classify(
            message, inputs.texts, inputs.pairs, options, _NAMES, requested.truncate
        )
        lists = [ranked(answer, requested.top_k) for answer in answers]
        content = lists[0] if inputs.single else lists
        return JSONResponse(content, headers=answer_headers(answers))

    documented: dict[str, Any] = {
        "tags": ["Hugging Face"],
        "openapi_extra": texts_body(
            "inputs", "a gripping, funny film", {"parameters": _PARAMETERS}
        ),
        "response_class": JSONResponse,
    }

    @app.post(ROOT, **documented)
    async def root(message: Request) -> Response:
        """Answer as text-embeddings-inference; with ``parameters``, as the Inference API."""
        return await predict(message, None)

    @app.post(PREDICT, **documented)
    async def tei(message: Request) -> Response:
        """Answer as text-embeddings-inference: flat for one text, nested for a list."""
        return await predict(message, "tei")

    @app.post(MODELS + "{name:path}", **documented)
    async def inference_api(message: Request, name: str) -> Response:
        """Answer as the Inference API: always a list for each text."""
        calls.check_model(name)
        return await predict(message, "inference-api")

    @app.get("/info", tags=["Hugging Face"])
    async def info() -> dict[str, Any]:
        """Return the model as text-embeddings-inference describes one."""
        labels = calls.description.labels
        return {
            "model_id": calls.model,
            "model_sha": calls.description.bundle_id,
            "model_type": {
                "classifier": {
                    "id2label": {str(i): label for i, label in enumerate(labels)},
                    "label2id": {label: i for i, label in enumerate(labels)},
                }
            },
            "max_input_length": calls.mobile.runtime.bundle.manifest.max_tokens,
            "auto_truncate": True,
        }

    @app.head("/health", include_in_schema=False)
    @app.get("/health", tags=["Hugging Face"])
    async def health() -> Response:
        """Return 200 once the gateway serves, else 503, as text-embeddings-inference and vLLM."""
        calls.check_ready()
        return Response()
