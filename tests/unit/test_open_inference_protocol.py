"""Open Inference Protocol over HTTP: metadata, JSON and binary tensors, hostile requests."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.chaos.fuzz import any_json
from tests.support.protocol_gateway import classification, json_bytes, mobile_gateway

TEXTS = ["a gripping, funny film", "a dull film"]
INFER = "/v2/models/sst2/infer"
LENGTH = "inference-header-content-length"
OUTPUTS = ["label", "probabilities", "tier", "exit_layer"]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A gateway without other tiers, whose mobile answers."""
    with mobile_gateway(tmp_path_factory.mktemp("state")) as client:
        yield client


def tensor(*texts: str, **fields: Any) -> dict[str, Any]:
    """Return an input tensor with its data as JSON."""
    shown = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}
    return {name: value for name, value in (shown | fields).items() if value is not None}


def packed(*texts: str | bytes) -> bytes:
    """Return the binary data of a BYTES tensor."""
    encoded = [text.encode() if isinstance(text, str) else text for text in texts]
    return b"".join(struct.pack("<I", len(one)) + one for one in encoded)


def binary(data: bytes, count: int, size: Any = None, **request: Any) -> tuple[bytes, bytes]:
    """Return the JSON object and the data of a request with one binary tensor."""
    size = len(data) if size is None else size
    one = tensor(shape=[count], data=None, parameters={"binary_data_size": size})
    return json.dumps({"inputs": [one]} | request).encode(), data


def post_binary(
    gateway: TestClient, head: bytes, data: bytes, length: Any = None
) -> httpx.Response:
    headers = {LENGTH: str(len(head) if length is None else length)}
    return gateway.post(INFER, content=head + data, headers=headers)


def outputs(answer: httpx.Response) -> dict[str, Any]:
    """Return the output tensors as lists, from JSON or from the binary data."""
    assert answer.status_code == 200, answer.text
    length = int(answer.headers.get(LENGTH, len(answer.content)))
    content, data = json.loads(answer.content[:length]), answer.content[length:]
    found: dict[str, Any] = {}
    for one in content["outputs"]:
        if "data" in one:
            values = np.array(one["data"])
        else:
            size = one["parameters"]["binary_data_size"]
            mine, data = data[:size], data[size:]
            kinds = {"FP32": "<f4", "INT32": "<i4"}
            kind = kinds.get(one["datatype"])
            values = np.array(unpacked(mine)) if kind is None else np.frombuffer(mine, dtype=kind)
        found[one["name"]] = values.reshape(one["shape"]).tolist()
    assert data == b""
    return found


def unpacked(data: bytes) -> list[str]:
    found = []
    while data:
        size = struct.unpack_from("<I", data)[0]
        found.append(data[4 : 4 + size].decode())
        data = data[4 + size :]
    return found


def expected(gateway: TestClient) -> dict[str, Any]:
    """Return the outputs for `TEXTS`, from the answers of ``POST /v1/classify``."""
    answers = [classification(gateway, text) for text in TEXTS]
    return {
        "label": [one["label"] for one in answers],
        "probabilities": [
            [one["probabilities"][name] for name in ("negative", "positive")] for one in answers
        ],
        "tier": [one["tier"] for one in answers],
        "exit_layer": [one["exit_layer"] for one in answers],
    }


def test_metadata_describes_server_and_model(gateway: TestClient) -> None:
    server = gateway.get("/v2").json()
    assert set(server) == {"name", "version", "extensions"}
    assert "binary_tensor_data" in server["extensions"]
    model = gateway.get("/v2/models/sst2").json()
    version = model["versions"][0]
    assert gateway.get(f"/v2/models/sst2/versions/{version}").json() == model
    assert model["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [one["name"] for one in model["outputs"]] == OUTPUTS
    shapes = {one["name"]: one["shape"] for one in model["outputs"]}
    assert shapes["probabilities"] == [-1, 2]


def test_probes(gateway: TestClient) -> None:
    version = gateway.get("/v2/models/sst2").json()["versions"][0]
    for path in ("health/live", "health/ready", "models/sst2/ready"):
        assert gateway.get(f"/v2/{path}").status_code == 200
    assert gateway.get(f"/v2/models/sst2/versions/{version}/ready").json()["ready"] is True


@pytest.mark.parametrize(
    "path", ["models/other", "models/other/ready", "models/sst2/versions/9", "nothing", "models/"]
)
def test_unknown_models_and_paths(gateway: TestClient, path: str) -> None:
    answer = gateway.get(f"/v2/{path}")
    assert answer.status_code == 404
    assert isinstance(answer.json()["error"], str)


@pytest.mark.parametrize(
    "inputs",
    [
        tensor(*TEXTS),
        tensor(*TEXTS, shape=[2, 1]),
        tensor(*TEXTS, shape=[2, 1], data=[[text] for text in TEXTS]),
    ],
)
def test_json_tensors(gateway: TestClient, inputs: dict[str, Any]) -> None:
    version = gateway.get("/v2/models/sst2").json()["versions"][0]
    for path in (INFER, f"/v2/models/sst2/versions/{version}/infer", f"/v2/models/{version}/infer"):
        answer = gateway.post(path, json={"id": "seven", "inputs": [inputs]})
        assert outputs(answer) == expected(gateway)
        content = answer.json()
        assert (content["id"], content["model_name"]) == ("seven", "sst2")
        assert content["model_version"] == version
        request_ids = answer.headers["x-dimee-request-id"]
        assert content["parameters"]["request_id"] == request_ids
    assert "id" not in gateway.post(INFER, json={"inputs": [inputs]}).json()


def test_binary_tensors(gateway: TestClient) -> None:
    head, data = binary(packed(*TEXTS), 2)
    answer = post_binary(gateway, head, data)
    assert outputs(answer) == expected(gateway)
    assert answer.headers["content-type"] == "application/json"
    head, data = binary(packed(*TEXTS), 2, parameters={"binary_data_output": True})
    answer = post_binary(gateway, head, data)
    assert answer.headers["content-type"] == "application/octet-stream"
    probabilities = outputs(answer).pop("probabilities")
    assert np.array_equal(probabilities, np.float32(expected(gateway)["probabilities"]))


def test_requested_outputs(gateway: TestClient) -> None:
    requested = [
        {"name": "tier", "parameters": {"binary_data": True}},
        {"name": "probabilities", "parameters": {"classification": 1, "binary_data": False}},
    ]
    answer = gateway.post(INFER, json={"inputs": [tensor(*TEXTS)], "outputs": requested})
    found = outputs(answer)
    assert found["tier"] == ["mobile", "mobile"]
    score = expected(gateway)["probabilities"][0][1]
    assert found["probabilities"][0] == [f"{score:f}:1:positive"]


@pytest.mark.parametrize(("name", "squeeze"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_requests(gateway: TestClient, name: str, squeeze: Any) -> None:
    body, headers = json_bytes({"inputs": [tensor(*TEXTS)]}), {"content-encoding": name}
    answer = gateway.post(INFER, content=squeeze(body), headers=headers)
    assert outputs(answer) == expected(gateway)
    for wrong in (body, squeeze(body)[:-9], squeeze(body) + b"more"):
        assert gateway.post(INFER, content=wrong, headers=headers).status_code == 400
    bomb = gateway.post(INFER, content=squeeze(b"x" * 50_000_000), headers=headers)
    assert bomb.status_code == 413
    assert gateway.post(INFER, content=body, headers={"content-encoding": "br"}).status_code == 400


def test_options_are_headers_or_parameters(gateway: TestClient) -> None:
    inputs = [tensor(TEXTS[0])]
    answer = gateway.post(INFER, json={"inputs": inputs, "parameters": {"policy": "unknown"}})
    assert (answer.status_code, answer.json()["error"][:7]) == (400, "policy:")
    answer = gateway.post(INFER, json={"inputs": inputs}, headers={"x-dimee-mode": "unknown"})
    assert (answer.status_code, answer.json()["error"][:5]) == (400, "mode:")
    answer = gateway.post(INFER, json={"inputs": inputs, "parameters": {"timeout": 100}})
    assert (answer.status_code, answer.json()["error"][:12]) == (400, "deadline_ms:")
    for wrong in ({"timeout": 10**400}, {"timeout": -(10**400)}, {"policy": ["mobile"]}):
        answer = gateway.post(INFER, json={"inputs": inputs, "parameters": wrong})
        assert (answer.status_code, "must be" in answer.json()["error"]) == (400, True)
    answer = gateway.post(INFER, content=json.dumps({"inputs": inputs, "id": "\ud800"}))
    assert (answer.status_code, answer.json()["error"][:3]) == (400, "id:")
    allowed = {"timeout": 30_000_000, "max_cost_lambda": 100, "mode": "only-on-device"}
    assert gateway.post(INFER, json={"inputs": inputs, "parameters": allowed}).status_code == 200


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "inputs: must be a list"),
        ({"inputs": []}, "inputs: must be a list"),
        ({"inputs": [1]}, "inputs.0: must be an object"),
        ({"inputs": [tensor("a", name="x")]}, "inputs: this model has the inputs text"),
        ({"inputs": [tensor("a"), tensor("a")]}, "inputs: this model has the inputs text"),
        ({"inputs": [tensor("a", datatype="FP32")]}, "inputs.0.datatype"),
        ({"inputs": [tensor("a", shape=[])]}, "inputs.0.shape"),
        ({"inputs": [tensor("a", shape=[1, 1, 1])]}, "inputs.0.shape"),
        ({"inputs": [tensor("a", shape=[-1])]}, "inputs.0.shape"),
        ({"inputs": [tensor("a", shape=[True])]}, "inputs.0.shape"),
        ({"inputs": [tensor("a", shape=[1.0])]}, "inputs.0.shape"),
        ({"inputs": [tensor("a", shape=[2])]}, "inputs.0: its shape has 2 elements"),
        ({"inputs": [tensor(shape=[0], data=[])]}, "inputs.text: is empty"),
        ({"inputs": [tensor("a", data=[1])]}, "inputs.0.data"),
        ({"inputs": [tensor("a", data=None)]}, "inputs.0: needs its data"),
        ({"inputs": [tensor(" ")]}, "inputs.text.0: is empty"),
        ({"inputs": [tensor("a", other=1)]}, "inputs.0.other"),
        (
            {"inputs": [tensor("a", parameters={"shared_memory_region": "x"})]},
            "inputs.0.parameters",
        ),
        (
            {"inputs": [tensor("a", data=None, parameters={"binary_data_size": 1})]},
            "inputs.0.param",
        ),
        ({"inputs": [tensor("a")], "outputs": [{"name": "x"}]}, "outputs.0"),
        ({"inputs": [tensor("a")], "outputs": [{"name": "tier"}] * 2}, "outputs.1"),
        ({"inputs": [tensor("a")], "outputs": {}}, "outputs"),
        ({"inputs": [tensor("a")], "id": 7}, "id"),
        ({"inputs": [tensor("a")], "id": "x" * 300}, "id"),
        ({"inputs": [tensor("a")], "parameters": {"sequence_id": 1}}, "parameters.sequence_id"),
        ({"inputs": [tensor("a")], "other": 1}, "other"),
    ],
)
def test_wrong_requests(gateway: TestClient, request_: dict[str, Any], message: str) -> None:
    answer = gateway.post(INFER, json=request_)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].startswith(message)


@pytest.mark.parametrize(
    "length", ["-1", "x", "1e3", "+5", "99999999999999999999", "1000000", "", "0", "²"]
)
def test_wrong_lengths_of_the_json_object(gateway: TestClient, length: str) -> None:
    head, data = binary(packed("a"), 1)
    headers = {LENGTH.encode(): length.encode()}
    answer = gateway.post(INFER, content=head + data, headers=headers)
    assert answer.status_code == 400
    assert isinstance(answer.json()["error"], str)


def test_two_lengths_of_the_json_object(gateway: TestClient) -> None:
    head, data = binary(packed("a"), 1)
    headers = [(LENGTH, str(len(head))), (LENGTH, "2")]
    assert gateway.post(INFER, content=head + data, headers=headers).status_code == 400


@pytest.mark.parametrize("size", [-1, 6, 10**30, 1.0, "5", True, None, [5]])
def test_wrong_sizes_of_binary_data(gateway: TestClient, size: Any) -> None:
    one = tensor(shape=[1], data=None, parameters={"binary_data_size": size})
    head = json.dumps({"inputs": [one]}).encode()
    answer = post_binary(gateway, head, packed("a"))
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (packed("a") + b"\0\0", 1),
        (struct.pack("<I", 2**32 - 1) + b"a", 1),
        (packed(b"\xff\xfe"), 1),
        (packed("a", "b"), 1),
        (packed("a"), 2),
        (b"", 1),
        (packed("a\0b"), 1),
    ],
)
def test_wrong_binary_data(gateway: TestClient, data: bytes, count: int) -> None:
    head, data = binary(data, count)
    answer = post_binary(gateway, head, data)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"].startswith(("inputs.0: ", "inputs.text.0: "))


def test_bytes_behind_the_last_tensor_are_refused(gateway: TestClient) -> None:
    head, data = binary(packed("a"), 1)
    answer = post_binary(gateway, head, data + b"x")
    assert "belong to no tensor" in answer.json()["error"]


def test_limits(gateway: TestClient) -> None:
    head, data = binary(packed(*["a"] * 1_001), 1_001)
    for answer in (
        post_binary(gateway, head, data),
        gateway.post(INFER, json={"inputs": [tensor(*["a"] * 1_001)]}),
        gateway.post(INFER, json={"inputs": [tensor("a", shape=[10**400])]}),
        gateway.post(INFER, content=b"[" + b"1," * 5_000 + b"1]"),
        gateway.post(INFER, content=b"x" * 5_000_000),
    ):
        assert answer.status_code == 413, answer.text
        assert list(answer.json()) == ["error"]
    commas = binary(packed("," * 15_000), 1)
    assert post_binary(gateway, *commas).status_code == 200, "commas in texts are no JSON values"
    assert gateway.post(INFER, content=b"[" * 100_000).status_code == 400
    assert gateway.get(INFER.replace("sst2", "x" * 9_000)).status_code == 404
    assert gateway.put("/v2/models/sst2/infer").status_code == 405


def test_any_request_gets_an_answer_or_an_error(gateway: TestClient) -> None:
    """No JSON, length or binary data ends in an internal error."""
    fields = {
        "name": st.sampled_from(["text", "pair"]) | any_json,
        "datatype": st.just("BYTES") | any_json,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | any_json,
        "data": st.lists(st.text(max_size=9), max_size=3) | any_json,
        "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 20)}) | any_json,
    }
    tensors = st.fixed_dictionaries({}, optional=fields)
    requests = st.fixed_dictionaries(
        {"inputs": st.lists(tensors, max_size=2) | any_json},
        optional={
            "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(OUTPUTS)}))
            | any_json,
            "parameters": any_json,
            "id": any_json,
        },
    )
    datas = st.binary(max_size=20) | st.lists(st.text(max_size=4)).map(lambda all_: packed(*all_))

    @settings(max_examples=250, deadline=None, database=None, derandomize=True)
    @given(requests | any_json, datas, st.integers(-2, 2), st.booleans())
    def check(request: Any, data: bytes, error: int, with_length: bool) -> None:
        head = json_bytes(request)
        headers = {LENGTH: str(len(head) + error)} if with_length else {}
        answer = gateway.post(INFER, content=head + data, headers=headers)
        assert answer.status_code in (200, 400, 413), answer.text
        if answer.status_code != 200:
            assert isinstance(answer.json()["error"], str)

    check()
