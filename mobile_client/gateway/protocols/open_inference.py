"""Open Inference Protocol, version 2, over HTTP (KServe, Triton Inference Server).

The model is the bundle's task, its only version the bundle's identifier. Inputs are BYTES tensors
of texts, ``text`` and, for a task with pairs, ``pair``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from mobile_client.gateway.protocols.calls import (
    FieldNames,
    ProtocolCalls,
    model_names,
    ranked,
    take_boolean,
    take_identifier,
    take_object,
)
from mobile_client.gateway.protocols.request_options import (
    answer_headers,
    options_of,
    refuse_unknown,
)
from mobile_client.gateway.protocols.tensors import (
    HEADER_LENGTH,
    OutputTensor,
    TextTensor,
    decompressed,
    read_tensors,
    split_body,
)
from shared.errors import InvalidInput, NotFound
from shared.serving.auth import principal_of
from shared.serving.body_limit import BYTES_PER_REQUEST
from shared.wire import BundleDescription, Classification

PREFIX = "/v2"
LIVE = PREFIX + "/health/live"
READY = PREFIX + "/health/ready"
PROBES = (LIVE, READY)
MODEL = PREFIX + "/models/{name:path}"
VERSION = MODEL + "/versions/{version}"
EXTENSIONS = ["binary_tensor_data", "classification"]
PLATFORM = "onnx_onnxv1"
OUTPUTS = ("label", "probabilities", "tier", "exit_layer")
MAX_ID_CHARS = 256
MAX_TIMEOUT_US = 2**63 - 1
"""Largest ``timeout`` that the protocol over gRPC can carry."""
_NAMES = FieldNames("inputs.text", "inputs.pair")
_TAG: dict[str, Any] = {"tags": ["Open Inference Protocol"]}


def call_paths(description: BundleDescription) -> frozenset[str]:
    """Return the paths of the calls that classify, whose bodies may be binary."""
    models = [f"{PREFIX}/models/{name}" for name in model_names(description)]
    versions = ("", f"/versions/{description.bundle_id}")
    return frozenset(f"{model}{version}/infer" for model in models for version in versions)


def input_names(description: BundleDescription) -> list[str]:
    """Return the names of the input tensors."""
    return ["text", "pair"] if description.pairs else ["text"]


def model_metadata(description: BundleDescription) -> dict[str, Any]:
    """Return the description of the model."""
    datatypes = dict(zip(OUTPUTS, ("BYTES", "FP32", "BYTES", "INT32"), strict=True))
    shapes = {"probabilities": [-1, len(description.labels)]}
    return {
        "name": description.task,
        "versions": [description.bundle_id],
        "platform": PLATFORM,
        "inputs": [
            {"name": name, "datatype": "BYTES", "shape": [-1]} for name in input_names(description)
        ],
        "outputs": [
            {"name": name, "datatype": kind, "shape": shapes.get(name, [-1])}
            for name, kind in datatypes.items()
        ],
    }


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """A requested output; ``classes`` is the number of labels of the classification extension."""

    name: str
    binary: bool
    classes: int = 0


def read_outputs(outputs: Any, binary: bool) -> list[RequestedOutput]:
    """Return the requested outputs; all if there are none. ``binary`` is the request's default."""
    if outputs is None:
        return [RequestedOutput(name, binary) for name in OUTPUTS]
    if not isinstance(outputs, list):
        raise InvalidInput("outputs: must be a list", field="outputs")
    requested: list[RequestedOutput] = []
    for i, one in enumerate(outputs):
        field = f"outputs.{i}"
        if not isinstance(one, dict) or one.get("name") not in OUTPUTS:
            raise InvalidInput(
                f"{field}: must have the name of an output: {', '.join(OUTPUTS)}", field=field
            )
        output = dict(one)
        name = output.pop("name")
        parameters = take_object(output, "parameters")
        chosen = take_boolean(parameters, "binary_data")
        classes = parameters.pop("classification", 0)
        refuse_unknown(parameters, f"{field}.parameters.")
        refuse_unknown(output, f"{field}.")
        wrong = not isinstance(classes, int) or isinstance(classes, bool) or classes < 0
        if wrong or (classes and name != "probabilities"):
            raise InvalidInput(
                f"{field}.parameters.classification: must be a number of labels, for the output "
                "probabilities",
                field=f"{field}.parameters.classification",
            )
        if any(name == other.name for other in requested):
            raise InvalidInput(f"{field}: {name} is requested twice", field=field)
        requested.append(RequestedOutput(name, binary if chosen is None else chosen, classes))
    return requested or read_outputs(None, binary)


def output_tensor(
    output: RequestedOutput, answers: list[Classification], labels: list[str]
) -> OutputTensor:
    """Return the tensor of one output for all answers."""
    n = len(answers)
    if output.classes:
        classes = min(output.classes, len(labels))
        rows = [
            f"{row['score']:f}:{labels.index(row['label'])}:{row['label']}"
            for answer in answers
            for row in ranked(answer, classes)
        ]
        return OutputTensor(output.name, "BYTES", [n, classes], rows)
    if output.name == "probabilities":
        values = [answer.probabilities[label] for answer in answers for label in labels]
        return OutputTensor(output.name, "FP32", [n, len(labels)], values)
    if output.name == "exit_layer":
        layers = [answer.exit_layer for answer in answers]
        return OutputTensor(output.name, "INT32", [n], layers)
    names = [answer.label if output.name == "label" else answer.tier.value for answer in answers]
    return OutputTensor(output.name, "BYTES", [n], names)


def install_open_inference(app: FastAPI, calls: ProtocolCalls) -> None:
    """Add the endpoints of the protocol.

    A decorator that is nearer to its function is matched first.
    """

    def check_model(name: str, version: str | None = None) -> None:
        calls.check_model(name)
        if version not in (None, calls.description.bundle_id):
            raise NotFound(
                f"version: {version[:64]!r} of {name} is not served; use "
                f"{calls.description.bundle_id!r} or leave it out",
                field="version",
            )

    @app.get(PREFIX, **_TAG)
    async def server_metadata() -> dict[str, Any]:
        """Return name, version and extensions of the server."""
        return {"name": "dimee", "version": app.version, "extensions": EXTENSIONS}

    @app.head(LIVE, include_in_schema=False)
    @app.get(LIVE, **_TAG)
    async def live() -> dict[str, bool]:
        """Return 200 while the process is alive."""
        return {"live": True}

    @app.head(READY, include_in_schema=False)
    @app.get(READY, **_TAG)
    async def ready() -> dict[str, bool]:
        """Return 200 once the gateway serves, else 503."""
        calls.check_ready()
        return {"ready": True}

    @app.head(MODEL + "/ready", include_in_schema=False)
    @app.head(VERSION + "/ready", include_in_schema=False)
    @app.get(MODEL + "/ready", **_TAG)
    @app.get(VERSION + "/ready", **_TAG)
    async def model_ready(name: str, version: str | None = None) -> dict[str, Any]:
        """Return 200 once the model can be used, else 503, and 404 for any other model."""
        check_model(name, version)
        calls.check_ready()
        return {"name": name, "ready": True}

    @app.post(MODEL + "/infer", response_class=Response, openapi_extra=_request_body(), **_TAG)
    @app.post(VERSION + "/infer", response_class=Response, openapi_extra=_request_body(), **_TAG)
    async def infer(message: Request, name: str, version: str | None = None) -> Response:
        """Classify the texts of the input tensors; JSON, or the binary tensor data extension."""
        check_model(name, version)
        sent = await message.body()
        body = decompressed(sent, message.headers.get("content-encoding"))
        if body is not sent:
            principal_of(message).charge(len(body) // BYTES_PER_REQUEST)
        request, data = split_body(body, message.headers.getlist(HEADER_LENGTH))
        return await _infer(calls, message, request, data)

    @app.get(MODEL, **_TAG)
    @app.get(VERSION, **_TAG)
    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        """Return the inputs and outputs of the model."""
        check_model(name, version)
        return model_metadata(calls.description)


async def _infer(
    calls: ProtocolCalls, message: Request, request: dict[str, Any], data: bytes
) -> Response:
    """Answer a request for inference, whose binary tensors are in ``data``."""
    parameters = take_object(request, "parameters")
    _use_timeout(parameters)
    options = options_of(message.headers, parameters)
    binary = bool(take_boolean(parameters, "binary_data_output"))
    refuse_unknown(parameters, "parameters.")
    identifier = take_identifier(request, "id", MAX_ID_CHARS)
    tensors = read_tensors(request.pop("inputs", None), data)
    requested = read_outputs(request.pop("outputs", None), binary)
    for name in ("model_name", "model_version"):  # the path has them
        request.pop(name, None)
    refuse_unknown(request)
    inputs = _by_name(tensors, input_names(calls.description))
    answers = await calls.classify(message, inputs["text"], inputs.get("pair"), options, _NAMES)
    outputs = [output_tensor(one, answers, calls.description.labels) for one in requested]
    content: dict[str, Any] = {
        "model_name": calls.model,
        "model_version": calls.description.bundle_id,
        "id": identifier,
        "parameters": {
            "cost_lambda": sum(answer.cost.cost_lambda for answer in answers),
            "request_id": ", ".join(answer.request_id for answer in answers),
        },
    }
    if identifier is None:
        del content["id"]
    return _response(content, outputs, requested, answer_headers(answers))


def _use_timeout(parameters: dict[str, Any]) -> None:
    """Use the parameter ``timeout`` of Triton, in microseconds, as deadline."""
    timeout_us = parameters.pop("timeout", None)
    if timeout_us is None:
        return
    whole = isinstance(timeout_us, int) and not isinstance(timeout_us, bool)
    if not whole or abs(timeout_us) > MAX_TIMEOUT_US:
        raise InvalidInput(
            f"parameters.timeout: must be a number of microseconds, at most {MAX_TIMEOUT_US:,}",
            field="parameters.timeout",
            limit=MAX_TIMEOUT_US,
        )
    if timeout_us and parameters.get("deadline_ms") is None:
        parameters["deadline_ms"] = timeout_us / 1e3


def _by_name(tensors: list[TextTensor], names: list[str]) -> dict[str, list[str]]:
    """Return the texts of each input; raise `InvalidInput` unless there is one of each name."""
    if sorted(tensor.name for tensor in tensors) != sorted(names):
        raise InvalidInput(
            f"inputs: this model has the inputs {' and '.join(names)}; send each once",
            field="inputs",
        )
    return {tensor.name: tensor.texts for tensor in tensors}


def _response(
    content: dict[str, Any],
    outputs: list[OutputTensor],
    requested: list[RequestedOutput],
    headers: dict[str, str],
) -> Response:
    binary: list[bytes] = []
    rows = content["outputs"] = []
    for tensor, output in zip(outputs, requested, strict=True):
        row: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
        }
        if output.binary:
            binary.append(tensor.to_bytes())
            row["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            row["data"] = tensor.values
        rows.append(row)
    head = json.dumps(content).encode()
    if not binary:
        return Response(head, headers=headers, media_type="application/json")
    return Response(
        b"".join([head, *binary]),
        headers=headers | {HEADER_LENGTH: str(len(head))},
        media_type="application/octet-stream",
    )


def _request_body() -> dict[str, Any]:
    """Return the request's body for the OpenAPI document."""
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1]}
    example = {"inputs": [tensor | {"data": ["a gripping, funny film"]}]}
    schema = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "maxLength": MAX_ID_CHARS},
            "inputs": {"type": "array", "items": {"type": "object"}, "minItems": 1},
            "outputs": {"type": "array", "items": {"type": "object"}},
            "parameters": {"type": "object"},
        },
    }
    content = {"application/json": {"schema": schema, "example": example}}
    return {"requestBody": {"required": True, "content": content}}
