"""Codec of hidden states: round trips, and refusal of invalid and hostile bodies."""

from __future__ import annotations

import json
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load, save

from shared.errors import BundleMismatch, InvalidInput
from shared.inference.codec import (
    CODECS,
    MAX_HEADER_BYTES,
    Codec,
    Floats,
    ResumeLimits,
    decode,
    encode,
    encoded_bytes,
    outlier_channels,
    uplink_ms,
    worth_resuming,
)

T, H = 9, 32
BUNDLE = "0123456789abcdef"
LIMITS = ResumeLimits(BUNDLE, hidden_size=H, max_tokens=16, layers=6)
MAX_ALLOCATED = 200_000  # bytes, for bodies of at most 2,000


def states(tokens: int = T, seed: int = 1) -> Floats:
    """Return values like a layer's output: about 1, with two channels of large values."""
    hidden_TH = np.random.default_rng(seed).normal(size=(tokens, H)).astype(np.float32)
    hidden_TH[:, [3, 17]] += np.float32(40)
    return hidden_TH


def written(codec: Codec = "int8") -> tuple[dict[str, Any], dict[str, str]]:
    """Return tensors and metadata as `encode` writes them, to be changed by a test."""
    body = encode(states(), 2, BUNDLE, codec)
    (length,) = struct.unpack_from("<Q", body)
    return dict(load(body)), json.loads(body[8 : 8 + length])["__metadata__"]


def with_header(header: object, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


@pytest.mark.parametrize("tokens", [1, 9, 16])
@pytest.mark.parametrize("codec", CODECS)
def test_encoded_state_is_decoded(codec: Codec, tokens: int) -> None:
    hidden_TH = states(tokens)
    body = encode(hidden_TH, 5, BUNDLE, codec)
    state = decode(body, LIMITS)
    assert (state.layer, state.bundle_id, state.codec) == (5, BUNDLE, codec)
    assert (state.tokens, state.hidden_TH.dtype) == (tokens, np.float32)
    # a large channel must not make the others coarse: their own largest sets the step
    step = 0.05 if codec == "fp16" else 5 / 127
    assert np.abs(state.hidden_TH - hidden_TH).max() <= step
    assert encode(state.hidden_TH, 5, BUNDLE, codec) is not None
    assert abs(len(body) - encoded_bytes(tokens, H, codec)) <= 100


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 16), st.just(H)),
        elements=st.floats(-1e5, 1e5, width=32),
    ),
    st.sampled_from(CODECS),
)
@settings(max_examples=150, deadline=None)
def test_every_finite_state_is_decoded(hidden_TH: Floats, codec: Codec) -> None:
    got_TH = decode(encode(hidden_TH, 1, BUNDLE, codec), LIMITS).hidden_TH
    clamped_TH = np.clip(hidden_TH, -65_504, 65_504)
    step_T1 = np.abs(clamped_TH).max(1, keepdims=True) / (127 if codec == "int8" else 2048) + 1e-6
    assert (np.abs(got_TH - clamped_TH) <= step_T1).all()


def test_values_beyond_127_steps_are_clamped() -> None:
    tensors, _ = written()
    assert tensors["hidden"].min() >= -127
    assert sorted(tensors) == ["channels", "hidden", "outliers", "scale"]
    assert {3, 17} <= set(tensors["channels"].tolist())
    assert tensors["hidden"].shape == (T, H - outlier_channels(H))
    assert tensors["outliers"].dtype == np.float16
    nothing = encode(np.zeros((2, H), np.float32), 1, BUNDLE, "int8")
    assert not decode(nothing, LIMITS).hidden_TH.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("codec", CODECS)
def test_state_that_is_not_finite_is_refused(codec: Codec, value: float) -> None:
    hidden_TH = states()
    hidden_TH[1, 1] = value
    with pytest.raises(InvalidInput, match="not finite"):
        encode(hidden_TH, 1, BUNDLE, codec)
    tensors, facts = written(codec)
    tensors["hidden" if codec == "fp16" else "outliers"][0, 0] = value
    with pytest.raises(InvalidInput, match="not a number within"):
        decode(save(tensors, facts), LIMITS)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"format_version": "2"}, "not of format version 1"),
        ({"codec": "int4"}, "unknown codec; supported are int8, fp16"),
        ({"codec": "fp16"}, "exactly the tensors hidden"),
        ({"layer": "6"}, "this tier's last layer is 6"),
        ({"layer": "0"}, "its layer is not a whole number"),
        ({"layer": "²"}, "its layer is not a whole number"),
        ({"tokens": "17"}, "holds 17 tokens; the bundle takes at most 16"),
        ({"tokens": "8"}, "its hidden must be I8 of shape [8, 26]"),
        ({"tokens": "-1"}, "its tokens is not a whole number"),
        ({"tokens": "9" * 5000}, "at most 4,096 are accepted"),
        ({"hidden_size": "33"}, "has hidden size 33; the bundle has 32"),
        ({"bundle_id": ""}, "not a valid bundle id"),
        ({"bundle_id": "a\nb"}, "not a valid bundle id"),
        ({"colour": "blue"}, "its metadata must be exactly"),
    ],
)
def test_invalid_metadata_is_refused(changed: dict[str, str], says: str) -> None:
    tensors, facts = written()
    with pytest.raises(InvalidInput) as refused:
        decode(save(tensors, facts | changed), LIMITS)
    assert says in refused.value.message
    assert refused.value.field == "state"
    assert not isinstance(refused.value, BundleMismatch)


def test_state_of_another_bundle_is_a_mismatch_before_its_shape_is_checked() -> None:
    tensors, facts = written()
    other = facts | {"bundle_id": "f" * 16, "hidden_size": "768"}
    with pytest.raises(BundleMismatch, match="send the text instead"):
        decode(save(tensors, other), LIMITS)


@pytest.mark.parametrize(
    ("name", "tensor", "says"),
    [
        ("scale", np.zeros(T, np.float32), "scale must be above 0"),
        ("scale", np.full(T, -1, np.float32), "scale must be above 0"),
        ("scale", np.full(T, np.nan, np.float32), "scale must be above 0"),
        ("scale", np.full(T, 1e30, np.float32), "scale must be above 0"),
        ("scale", np.full(T, 65_000, np.float32), "not a number within"),
        ("scale", np.ones(T, np.float64), "scale must be F32"),
        ("channels", np.array([0, 1, 2, 3, 4, H], np.int32), "channels must be ascending"),
        ("channels", np.array([-1, 1, 2, 3, 4, 5], np.int32), "channels must be ascending"),
        ("channels", np.array([1, 1, 2, 3, 4, 5], np.int32), "channels must be ascending"),
        ("channels", np.arange(17, dtype=np.int32), "more than 16 outlier channels"),
        ("outliers", np.ones((T, 5), np.float16), "outliers must be F16 of shape [9, 6]"),
        ("hidden", np.ones((T, H), np.int8), "hidden must be I8 of shape [9, 26]"),
        ("mask", np.ones(T, np.int8), "exactly the tensors"),
    ],
)
def test_invalid_tensors_are_refused(name: str, tensor: Any, says: str) -> None:
    tensors, facts = written()
    with pytest.raises(InvalidInput) as refused:
        decode(save(tensors | {name: tensor}, facts), LIMITS)
    assert says in refused.value.message


def hostile_headers() -> dict[str, bytes]:
    """Return bodies that `decode` must refuse."""
    _, facts = written("fp16")
    ten_gb = facts | {"tokens": "16"}

    def entry(**changed: object) -> dict[str, object]:
        end = 2 * T * H
        return {"dtype": "F16", "shape": [T, H], "data_offsets": [0, end]} | changed

    data = bytes(2 * T * H)
    return {
        "empty": b"",
        "seven bytes": b"1234567",
        "a header of 2^63 bytes": struct.pack("<Q", 2**63) + b"{}",
        "a header that is longer than the body": struct.pack("<Q", 100) + b"{}",
        "no JSON": with_header(b"\xff\xfe"),
        "deep JSON": with_header(b"[" * MAX_HEADER_BYTES),
        "a long number": with_header(b"1" * MAX_HEADER_BYTES),
        "a list": with_header([]),
        "no metadata": with_header({"hidden": entry()}, data),
        "metadata of numbers": with_header(
            {"__metadata__": facts | {"tokens": T}, "hidden": entry()}, data
        ),
        "10 GB by its shape": with_header(
            {"__metadata__": ten_gb, "hidden": entry(shape=[10**5, 10**5])}, data
        ),
        "10 GB by its offsets": with_header(
            {"__metadata__": facts, "hidden": entry(data_offsets=[0, 10**10])}, data
        ),
        "offsets past the end": with_header(
            {"__metadata__": facts, "hidden": entry(data_offsets=[2, 2 + 2 * T * H])}, data
        ),
        "offsets below zero": with_header(
            {"__metadata__": facts, "hidden": entry(data_offsets=[-2 * T * H, 0])}, data
        ),
        "offsets of another kind": with_header(
            {"__metadata__": facts, "hidden": entry(data_offsets=[False, 1e300])}, data
        ),
        "a shape of another kind": with_header(
            {"__metadata__": facts, "hidden": entry(shape="many")}, data
        ),
        "an entry of another kind": with_header({"__metadata__": facts, "hidden": 3}, data),
        "bytes that belong to nothing": with_header(
            {"__metadata__": facts, "hidden": entry()}, data + b"x"
        ),
        "a dtype that is a list": with_header(
            {"__metadata__": facts, "hidden": entry(dtype=["F16"])}, data
        ),
    }


@pytest.mark.parametrize("what", hostile_headers())
def test_hostile_body_is_refused_without_allocation(what: str) -> None:
    refused_without_allocation(hostile_headers()[what])


def test_overlapping_tensors_are_refused() -> None:
    body = encode(states(), 2, BUNDLE, "int8")
    (length,) = struct.unpack_from("<Q", body)
    header = json.loads(body[8 : 8 + length])
    begin, end = header["channels"]["data_offsets"]
    header["scale"]["data_offsets"] = [begin, begin + 4 * T]
    refused_without_allocation(with_header(header, body[8 + length :]))
    header["channels"]["data_offsets"] = [end, begin]
    refused_without_allocation(with_header(header, body[8 + length :]))


def refused_without_allocation(body: bytes) -> None:
    with pytest.raises(InvalidInput) as refused:
        measured(body)
    assert refused.value.message.startswith("state: ")
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 250


def measured(body: bytes) -> None:
    """Decode; fail if the peak of memory exceeds the need of a body of this size."""
    tracemalloc.start()
    try:
        decode(body, LIMITS)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < MAX_ALLOCATED


@given(
    codec=st.sampled_from(CODECS),
    cut=st.integers(0, 2_000),
    changes=st.lists(st.tuples(st.integers(0, 1_999), st.integers(0, 255)), max_size=6),
    tail=st.binary(max_size=8),
)
@example(codec="int8", cut=2_000, changes=[], tail=b"x")
@example(codec="fp16", cut=7, changes=[], tail=b"")
@settings(max_examples=600, deadline=None)
def test_changed_body_is_decoded_or_refused(
    codec: Codec, cut: int, changes: list[tuple[int, int]], tail: bytes
) -> None:
    body = bytearray(encode(states(), 2, BUNDLE, codec)[:cut] + tail)
    for position, value in changes:
        if body:
            body[position % len(body)] = value
    try:
        measured(bytes(body))
    except InvalidInput:
        return
    state = decode(bytes(body), LIMITS)
    assert state.hidden_TH.shape[1] == H
    assert state.tokens <= LIMITS.max_tokens
    assert 1 <= state.layer < LIMITS.layers
    assert np.isfinite(state.hidden_TH).all()


@given(
    header=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["__metadata__", "hidden", "dtype", "shape", "data_offsets", "codec"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
    data=st.binary(max_size=64),
)
@settings(max_examples=300, deadline=None)
def test_invented_header_is_refused(header: object, data: bytes) -> None:
    refused_without_allocation(with_header(header, data))


def test_resuming_pays_if_it_saves_more_time_than_it_costs() -> None:
    assert uplink_ms(25_000, 10) == pytest.approx(20)
    # 10 kB at 100 Mbit/s take 0.8 ms
    assert worth_resuming(10_000, 100, 0.1, 0.1, skipped_ms=1.1)
    assert not worth_resuming(10_000, 100, 0.1, 0.1, skipped_ms=1.0)
    assert not worth_resuming(10_000, 1, 0.1, 0.1, skipped_ms=10)
