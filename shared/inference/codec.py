"""Codec for hidden states sent to another tier: versioned, in the safetensors format.

Shape suffixes: T tokens, H hidden size, K outlier channels, N = H − K.

====== ============================================================================ ==============
codec  tensors                                                                      bytes a token
====== ============================================================================ ==============
fp16   ``hidden`` F16 [T, H]                                                        2·H
int8   ``hidden`` I8 [T, N], ``scale`` F32 [T], ``outliers`` F16 [T, K],            H + K + 4
       ``channels`` I32 [K]: indices of the outlier channels, ascending
====== ============================================================================ ==============

The header's metadata holds format version, bundle, layer, codec, T and H. Nothing else is sent: one
row has no padding and needs no mask, and token types and positions are part of layer 1's input.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from shared.errors import BundleMismatch, InvalidInput

Codec = Literal["int8", "fp16"]
Floats = NDArray[np.float32]

FORMAT_VERSION = 1
MEDIA_TYPE = "application/octet-stream"
CODECS: tuple[Codec, ...] = ("int8", "fp16")
OUTLIERS = 6
MAX_OUTLIERS = 16
MAX_HEADER_BYTES = 4096
LARGEST = 65_504.0  # the largest fp16 value; layer norms stay far below it
_DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "I8": np.dtype("i1"),
    "I32": np.dtype("<i4"),
}
_METADATA = {"format_version", "bundle_id", "layer", "codec", "tokens", "hidden_size"}


@dataclass(frozen=True, slots=True)
class ResumeLimits:
    """The states a tier accepts: those of its own bundle, after a layer before its last one."""

    bundle_id: str
    hidden_size: int
    max_tokens: int
    layers: int


@dataclass(frozen=True, eq=False, slots=True)
class ResumeState:
    """A decoded state: ``hidden_TH`` is the output of ``layer`` for one text, all finite."""

    hidden_TH: Floats
    layer: int
    bundle_id: str
    codec: Codec

    @property
    def tokens(self) -> int:
        """T, special tokens included."""
        return len(self.hidden_TH)


@dataclass(frozen=True, slots=True)
class _Header:
    bundle_id: str
    layer: int
    codec: Codec
    tokens: int
    hidden_size: int


def encode(hidden_TH: Floats, layer: int, bundle_id: str, codec: Codec = "int8") -> bytes:
    """Encode the output of ``layer`` for one text; raise `InvalidInput` if it is not finite."""
    if not np.isfinite(hidden_TH).all():
        raise _state_error(f"the output of layer {layer} is not finite; send the text instead")
    tokens, hidden_size = hidden_TH.shape
    clamped_TH = np.clip(hidden_TH, -LARGEST, LARGEST)
    facts = {
        "format_version": FORMAT_VERSION,
        "bundle_id": bundle_id,
        "layer": layer,
        "codec": codec,
        "tokens": tokens,
        "hidden_size": hidden_size,
    }
    if codec == "fp16":
        tensors: dict[str, NDArray[Any]] = {"hidden": clamped_TH.astype(_DTYPES["F16"])}
    else:
        tensors = _quantise(clamped_TH)
    # safetensors writes the raw buffer, and an array of selected columns is not contiguous
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    return save(contiguous, {name: str(value) for name, value in facts.items()})


def _quantise(hidden_TH: Floats) -> dict[str, NDArray[Any]]:
    """Quantise with one scale per token; the few channels with large values stay in fp16."""
    hidden_size = hidden_TH.shape[1]
    outliers = outlier_channels(hidden_size)
    peak_H = np.abs(hidden_TH).max(0)
    channels_K = np.sort(np.argpartition(peak_H, hidden_size - outliers)[hidden_size - outliers :])
    rest_TN = hidden_TH[:, _rest(channels_K, hidden_size)]
    scale_T = np.abs(rest_TN).max(1) / np.float32(127)
    scale_T[scale_T == 0] = 1
    eight_TN = np.clip(np.rint(rest_TN / scale_T[:, None]), -127, 127)
    return {
        "hidden": eight_TN.astype(_DTYPES["I8"]),
        "scale": scale_T.astype(_DTYPES["F32"]),
        "outliers": hidden_TH[:, channels_K].astype(_DTYPES["F16"]),
        "channels": channels_K.astype(_DTYPES["I32"]),
    }


def outlier_channels(hidden_size: int) -> int:
    """Return K, the number of channels that `encode` keeps in fp16."""
    return min(OUTLIERS, hidden_size // 2)


def encoded_bytes(tokens: int, hidden_size: int, codec: Codec) -> int:
    """Return the size of the output of `encode`, to within a hundred bytes."""
    if codec == "fp16":
        return 250 + tokens * 2 * hidden_size
    outliers = outlier_channels(hidden_size)
    return 450 + tokens * (hidden_size + outliers + 4) + 4 * outliers


def worth_resuming(
    sent_bytes: int, uplink_mbps: float, encode_ms: float, decode_ms: float, skipped_ms: float
) -> bool:
    """Return whether sending a state takes less time than the layers that the next tier skips.

    ``8 · bytes / bandwidth + encode + decode < i · t_layer``. The time to send the text itself is
    neglected, because the text is a hundred times smaller.
    """
    return uplink_ms(sent_bytes, uplink_mbps) + encode_ms + decode_ms < skipped_ms


def uplink_ms(sent_bytes: int, uplink_mbps: float) -> float:
    """Return the milliseconds to send ``sent_bytes`` at ``uplink_mbps`` megabits a second."""
    return 8 * sent_bytes / (uplink_mbps * 1e3)


def decode(body: bytes, limits: ResumeLimits) -> ResumeState:
    """Decode an untrusted body.

    Every size is checked against ``len(body)`` and ``limits`` before an array is allocated. Raises
    `BundleMismatch` for the state of another bundle, and `InvalidInput` for an unknown version or
    codec, wrong sizes or types, values that are not finite, or a layer from which the tier cannot
    resume.
    """
    entries, facts, data = _parse_safetensors(body)
    header = _parse_header(facts)
    _check_limits(header, limits)
    arrays = _arrays(entries, data, header)
    if header.codec == "fp16":
        hidden_TH = arrays["hidden"].astype(np.float32)
    else:
        hidden_TH = _dequantise(arrays, header.hidden_size)
    # a comparison with NaN is false, so that NaN is refused as well
    if not (np.abs(hidden_TH) <= LARGEST).all():
        raise _state_error(f"holds a value that is not a number within ±{LARGEST:,.0f}")
    return ResumeState(hidden_TH, header.layer, header.bundle_id, header.codec)


def _parse_safetensors(body: bytes) -> tuple[dict[str, Any], dict[str, Any], memoryview]:
    """Split a body into tensor entries, metadata and data: length (8 bytes), JSON header, data."""
    if len(body) < 8:
        raise _state_error("is too short for safetensors; send the codec's whole output")
    (length,) = struct.unpack_from("<Q", body)
    if length > MAX_HEADER_BYTES or length > len(body) - 8:
        raise _state_error(
            f"declares a header of {length:,} bytes; at most {MAX_HEADER_BYTES:,} are accepted, "
            f"and {len(body) - 8:,} were sent",
            MAX_HEADER_BYTES,
        )
    try:
        entries = json.loads(body[8 : 8 + length])
    except (ValueError, RecursionError):
        raise _state_error("its header is not JSON; send the codec's output unchanged") from None
    facts = entries.pop("__metadata__", None) if isinstance(entries, dict) else None
    if not isinstance(facts, dict) or set(facts) != _METADATA:
        raise _state_error(f"its metadata must be exactly {', '.join(sorted(_METADATA))}")
    return entries, facts, memoryview(body)[8 + length :]


def _parse_header(facts: dict[str, Any]) -> _Header:
    if facts["format_version"] != str(FORMAT_VERSION):
        raise _state_error(f"is not of format version {FORMAT_VERSION}, the only one supported")
    codec = next((candidate for candidate in CODECS if candidate == facts["codec"]), None)
    if codec is None:
        raise _state_error(f"has an unknown codec; supported are {', '.join(CODECS)}")
    bundle_id = facts["bundle_id"]
    valid_id = isinstance(bundle_id, str) and bundle_id.isascii() and bundle_id.isalnum()
    if not valid_id or len(bundle_id) > 64:
        raise _state_error("its bundle_id is not a valid bundle id")
    numbers = [_positive_integer(facts, name) for name in ("layer", "tokens", "hidden_size")]
    return _Header(bundle_id, numbers[0], codec, numbers[1], numbers[2])


def _positive_integer(facts: dict[str, Any], name: str) -> int:
    value = facts[name]
    digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9
    if not digits or int(value) < 1:
        raise _state_error(f"its {name} is not a whole number of at least 1")
    return int(value)


def _check_limits(header: _Header, limits: ResumeLimits) -> None:
    if header.bundle_id != limits.bundle_id:
        raise BundleMismatch(
            f"state: comes from the bundle {header.bundle_id}, and this tier runs "
            f"{limits.bundle_id}; send the text instead",
            field="state",
        )
    if header.hidden_size != limits.hidden_size:
        raise _state_error(
            f"has hidden size {header.hidden_size:,}; the bundle has {limits.hidden_size:,}",
            limits.hidden_size,
        )
    if header.tokens > limits.max_tokens:
        raise _state_error(
            f"holds {header.tokens:,} tokens; the bundle takes at most {limits.max_tokens:,}",
            limits.max_tokens,
        )
    if header.layer >= limits.layers:
        raise _state_error(
            f"is after layer {header.layer}, and this tier's last layer is {limits.layers}: "
            "no layer is left to run; send the text instead",
            limits.layers - 1,
        )


def _arrays(
    entries: dict[str, Any], data: memoryview, header: _Header
) -> dict[str, NDArray[np.generic]]:
    """Return views on the data; raise `InvalidInput` unless it has exactly the codec's tensors."""
    expected = _expected_tensors(entries, header)
    if set(entries) != set(expected):
        raise _state_error(
            f"the codec {header.codec} has exactly the tensors {', '.join(expected)}"
        )
    arrays: dict[str, NDArray[np.generic]] = {}
    spans = []
    for name, (dtype, shape) in expected.items():
        entry = entries[name]
        size = int(np.prod(shape)) * _DTYPES[dtype].itemsize
        begin, end = _offsets(entry)
        valid = isinstance(entry, dict) and entry.get("dtype") == dtype
        valid = valid and entry.get("shape") == list(shape) and end - begin == size
        if not valid or end > len(data):
            raise _state_error(f"its {name} must be {dtype} of shape {list(shape)}, {size:,} bytes")
        spans.append((begin, end))
        arrays[name] = np.frombuffer(data[begin:end], _DTYPES[dtype]).reshape(shape)
    edges = [0, *(end for _, end in sorted(spans))]
    if [begin for begin, _ in sorted(spans)] != edges[:-1] or edges[-1] != len(data):
        raise _state_error("its tensors must be contiguous and fill the body")
    return arrays


def _expected_tensors(
    entries: dict[str, Any], header: _Header
) -> dict[str, tuple[str, tuple[int, ...]]]:
    tokens, hidden_size = header.tokens, header.hidden_size
    if header.codec == "fp16":
        return {"hidden": ("F16", (tokens, hidden_size))}
    channels = entries.get("channels")
    begin, end = _offsets(channels)
    outliers = (end - begin) // 4
    if not 0 <= outliers <= min(MAX_OUTLIERS, hidden_size - 1):
        raise _state_error(f"has more than {MAX_OUTLIERS} outlier channels", MAX_OUTLIERS)
    return {
        "hidden": ("I8", (tokens, hidden_size - outliers)),
        "scale": ("F32", (tokens,)),
        "outliers": ("F16", (tokens, outliers)),
        "channels": ("I32", (outliers,)),
    }


def _offsets(entry: object) -> tuple[int, int]:
    """Return a tensor's begin and end; (0, -1), which no tensor has, for an invalid entry."""
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2:
        return 0, -1
    if not all(type(value) is int and 0 <= value < 2**40 for value in offsets):
        return 0, -1
    return offsets[0], offsets[1]


def _dequantise(arrays: dict[str, NDArray[Any]], hidden_size: int) -> Floats:
    channels_K = arrays["channels"]
    inside = bool((channels_K >= 0).all() and (channels_K < hidden_size).all())
    if not inside or not (np.diff(channels_K) > 0).all():
        raise _state_error(f"its channels must be ascending and between 0 and {hidden_size - 1:,}")
    scale_T = arrays["scale"]
    if not ((scale_T > 0) & (scale_T <= LARGEST)).all():
        raise _state_error(f"its scale must be above 0 and at most {LARGEST:,.0f}")
    hidden_TH = np.empty((len(scale_T), hidden_size), np.float32)
    hidden_TH[:, _rest(channels_K, hidden_size)] = arrays["hidden"] * scale_T[:, None]
    hidden_TH[:, channels_K] = arrays["outliers"]
    return hidden_TH


def _rest(channels_K: NDArray[Any], hidden_size: int) -> NDArray[np.bool_]:
    rest_H = np.ones(hidden_size, bool)
    rest_H[channels_K] = False
    return rest_H


def _state_error(problem: str, limit: float | None = None) -> InvalidInput:
    return InvalidInput(f"state: {problem}", field="state", limit=limit)
