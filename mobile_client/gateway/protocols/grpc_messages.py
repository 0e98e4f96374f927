"""Conversion between messages of the Open Inference Protocol over gRPC and its HTTP bodies."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from itertools import islice
from typing import Any

from mobile_client.gateway.protocols.generated import open_inference_grpc_pb2 as pb2
from shared.errors import InvalidInput
from shared.wire import MAX_TEXTS

_LENGTH = struct.Struct("<I")


def infer_body(request: pb2.ModelInferRequest) -> tuple[bytes, int]:
    """Return the HTTP body of a request, with all tensors binary, and the length of its JSON.

    Raises `InvalidInput` if the data of the tensors is given twice, or not for all.
    """
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise InvalidInput(
            f"raw_input_contents: has {len(raw)} elements for {len(request.inputs)} inputs; give "
            "one for each",
            field="raw_input_contents",
        )
    inputs: list[dict[str, Any]] = []
    datas: list[bytes] = []
    for i, tensor in enumerate(request.inputs):
        if raw and tensor.HasField("contents"):
            raise InvalidInput(
                f"inputs.{i}.contents: must be left out with raw_input_contents",
                field=f"inputs.{i}.contents",
            )
        data = raw[i] if raw else _packed(tensor.contents)
        datas.append(data)
        parameters = _values(tensor.parameters) | {"binary_data_size": len(data)}
        inputs.append(
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(islice(tensor.shape, 3)),
                "parameters": parameters,
            }
        )
    head = {
        "inputs": inputs,
        "outputs": [
            {"name": one.name, "parameters": _values(one.parameters) | {"binary_data": True}}
            for one in request.outputs
        ],
        "parameters": _values(request.parameters) | {"binary_data_output": True},
        "id": request.id,
    }
    content = json.dumps(head).encode()
    return b"".join([content, *datas]), len(content)


def _packed(contents: pb2.InferTensorContents) -> bytes:
    """Return the texts of a tensor in the binary representation; one too many at most."""
    texts = islice(contents.bytes_contents, MAX_TEXTS + 1)
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts)


def _values(parameters: Mapping[str, pb2.InferParameter]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, parameter in parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        values[name] = None if kind is None else getattr(parameter, kind)
    return values


def infer_response(content: Mapping[str, Any], data: bytes) -> pb2.ModelInferResponse:
    """Return the message for an HTTP answer, whose tensors are all binary, in ``data``."""
    response = pb2.ModelInferResponse(
        model_name=content["model_name"],
        model_version=content["model_version"],
        id=content.get("id", ""),
    )
    for name, value in content["parameters"].items():
        if isinstance(value, str):
            response.parameters[name].string_param = value
        else:
            response.parameters[name].double_param = value
    position = 0
    for tensor in content["outputs"]:
        response.outputs.add(
            name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"]
        )
        end = position + tensor["parameters"]["binary_data_size"]
        response.raw_output_contents.append(data[position:end])
        position = end
    return response


def model_metadata(content: Mapping[str, Any]) -> pb2.ModelMetadataResponse:
    """Return the message for the description of the model."""
    response = pb2.ModelMetadataResponse(
        name=content["name"], versions=content["versions"], platform=content["platform"]
    )
    for name in ("inputs", "outputs"):
        for tensor in content[name]:
            getattr(response, name).add(**tensor)
    return response
