"""Tensors of the Open Inference Protocol, as JSON and by the binary tensor data extension.

A body with binary tensors is a JSON object followed by the data of the tensors in their order. The
header ``Inference-Header-Content-Length`` is the length of the JSON object, and the parameter
``binary_data_size`` of a tensor that of its data. In data of the type BYTES, each element has its
length before it, as 4 bytes, little-endian.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from mobile_client.gateway.protocols.calls import json_object, take_object
from mobile_client.gateway.protocols.request_options import refuse_unknown
from shared.errors import InvalidInput, TooLarge
from shared.serving.body_limit import has_more_values
from shared.wire import MAX_BODY_BYTES, MAX_TEXTS

HEADER_LENGTH = "inference-header-content-length"
MAX_VALUES = 4 * MAX_TEXTS
"""Most JSON values of a request."""
_LENGTH_DIGITS = 10
_LENGTH = struct.Struct("<I")
_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
"""Format for `zlib.decompressobj` in which it recognises the headers of gzip and zlib."""


@dataclass(frozen=True, slots=True)
class TextTensor:
    """An input tensor of texts."""

    name: str
    texts: list[str]


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """An output tensor; ``values`` are strings or numbers in row-major order."""

    name: str
    datatype: str
    shape: list[int]
    values: list[Any]

    def to_bytes(self) -> bytes:
        """Return the data in the binary representation."""
        if self.datatype == "BYTES":
            encoded = [str(value).encode() for value in self.values]
            return b"".join(_LENGTH.pack(len(one)) + one for one in encoded)
        kind = {"FP32": "<f4", "INT32": "<i4"}[self.datatype]
        return np.array(self.values, dtype=kind).tobytes()


def decompressed(body: bytes, encoding: str | None) -> bytes:
    """Return the body without its ``Content-Encoding``; at most `MAX_BODY_BYTES` are produced."""
    if encoding in (None, "", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise InvalidInput(
            "content-encoding: only gzip and deflate are supported", field="content-encoding"
        )
    inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        content = inflate.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error:
        content = b""
    if len(content) > MAX_BODY_BYTES:
        raise TooLarge(
            f"body: is larger than {MAX_BODY_BYTES:,} bytes, the largest body accepted",
            field="body",
            limit=MAX_BODY_BYTES,
        )
    if not inflate.eof or inflate.unused_data:
        raise InvalidInput(f"body: is not valid {encoding}", field="body")
    return content


def split_body(body: bytes, lengths: list[str]) -> tuple[dict[str, Any], bytes]:
    """Return a request's JSON object and its binary data.

    ``lengths`` are the values of the header `HEADER_LENGTH`; without one, the whole body is JSON.
    """
    length = len(body)
    if lengths:
        text = lengths[0] if len(lengths) == 1 else ""
        if not (text.isascii() and text.isdigit() and len(text) <= _LENGTH_DIGITS):
            raise InvalidInput(f"{HEADER_LENGTH}: must be one number of bytes", field=HEADER_LENGTH)
        length = int(text)
        if length > len(body):
            raise InvalidInput(
                f"{HEADER_LENGTH}: is {length:,}, and the body has only {len(body):,} bytes",
                field=HEADER_LENGTH,
                limit=len(body),
            )
    content = body[:length]
    if has_more_values(content, MAX_VALUES):
        raise TooLarge(
            f"body: holds more than {MAX_VALUES:,} values; send fewer",
            field="body",
            limit=MAX_VALUES,
        )
    return json_object(content), body[length:]


def read_tensors(inputs: Any, data: bytes) -> list[TextTensor]:
    """Return the input tensors of a request, whose binary ones are in ``data`` one after the other.

    Raises `InvalidInput` for a tensor that is not one of texts, of shape [n] or [n, 1].
    """
    if not isinstance(inputs, list) or not inputs:
        raise InvalidInput("inputs: must be a list of at least one tensor", field="inputs")
    tensors = []
    for i, one in enumerate(inputs):
        field = f"inputs.{i}"
        if not isinstance(one, dict):
            raise InvalidInput(f"{field}: must be an object", field=field)
        tensor, data = _read_tensor(dict(one), data, field)
        tensors.append(tensor)
    if data:
        raise InvalidInput(
            f"body: has {len(data):,} bytes that belong to no tensor; see binary_data_size and "
            f"{HEADER_LENGTH}",
            field="body",
        )
    return tensors


def _read_tensor(tensor: dict[str, Any], data: bytes, field: str) -> tuple[TextTensor, bytes]:
    """Return a tensor, and the data of those behind it."""
    name, datatype = tensor.pop("name", None), tensor.pop("datatype", None)
    if not isinstance(name, str):
        raise InvalidInput(f"{field}.name: must be a string", field=f"{field}.name")
    if datatype != "BYTES":
        raise InvalidInput(f"{field}.datatype: must be BYTES", field=f"{field}.datatype")
    count = _count(tensor.pop("shape", None), f"{field}.shape")
    values = tensor.pop("data", None)
    parameters = take_object(tensor, "parameters")
    size = parameters.pop("binary_data_size", None)
    refuse_unknown(parameters, f"{field}.parameters.")
    refuse_unknown(tensor, f"{field}.")
    if (size is None) == (values is None):
        raise InvalidInput(
            f"{field}: needs its data, or binary_data_size if the data is behind the JSON object",
            field=field,
        )
    if values is not None:
        texts = _flat(values, f"{field}.data")
    else:
        size_field = f"{field}.parameters.binary_data_size"
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(data):
            raise InvalidInput(
                f"{size_field}: must be a number of bytes that the body has behind its JSON object "
                f"({len(data):,} are left)",
                field=size_field,
            )
        texts, data = _unpacked(data[:size], field), data[size:]
    if len(texts) != count:
        raise InvalidInput(
            f"{field}: its shape has {count:,} elements, and its data {len(texts):,}", field=field
        )
    return TextTensor(name, texts), data


def _count(shape: Any, field: str) -> int:
    """Return the number n of elements of a shape [n] or [n, 1]."""
    valid = isinstance(shape, list) and all(
        isinstance(size, int) and not isinstance(size, bool) and size >= 0 for size in shape
    )
    if not valid or len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise InvalidInput(f"{field}: must be [n] or [n, 1], for n texts", field=field)
    if shape[0] > MAX_TEXTS:
        raise TooLarge(
            f"{field}: has {_shown(shape[0])} texts; at most {MAX_TEXTS:,} are allowed",
            field=field,
            limit=MAX_TEXTS,
        )
    return int(shape[0])


def _shown(number: int) -> str:
    return f"{number:,}" if number < 2**64 else "more than 2^64"


def _flat(values: Any, field: str) -> list[str]:
    """Return the texts of a flat list, or of a list of lists of one text each."""
    if isinstance(values, list):
        texts = [one[0] if isinstance(one, list) and len(one) == 1 else one for one in values]
        if all(isinstance(text, str) for text in texts):
            return texts
    raise InvalidInput(f"{field}: must be a list of texts, or of lists of one text", field=field)


def _unpacked(data: bytes, field: str) -> list[str]:
    """Return the elements of a BYTES tensor, which must be UTF-8."""
    texts: list[str] = []
    position = 0
    while position < len(data):
        if len(texts) == MAX_TEXTS:
            raise TooLarge(
                f"{field}: its data has more than {MAX_TEXTS:,} texts", field=field, limit=MAX_TEXTS
            )
        end = position + _LENGTH.size
        if end <= len(data):
            end += _LENGTH.unpack_from(data, position)[0]
        if end > len(data) or end < position + _LENGTH.size:
            raise InvalidInput(
                f"{field}: element {len(texts)} does not fit into the tensor's data; each element "
                "has its length before it, as 4 bytes, little-endian",
                field=field,
            )
        try:
            texts.append(data[position + _LENGTH.size : end].decode())
        except UnicodeDecodeError:
            raise InvalidInput(
                f"{field}: element {len(texts)} is not valid UTF-8", field=field
            ) from None
        position = end
    return texts
