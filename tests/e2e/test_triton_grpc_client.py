"""`tritonclient[grpc]`, unmodified, sync and async, against the gateway's gRPC port.

The gateway and the clients are different processes: both register the messages of the protocol.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.http as triton_http
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from shared.serving.tokens import new_token
from testbed.processes.processes import Testbed
from tests.support.paths import free_ports
from tests.support.recorded import check_recorded
from tests.support.running_testbed import start

TEXTS = ["a gripping, funny film", "a dull film"]
NAMES = ["label", "probabilities", "tier", "exit_layer"]
GRPC_PORT = "DIMEE_GRPC_PORT"


@pytest.fixture(scope="module")
def grpc_port() -> int:
    """The port of the gateway's gRPC server."""
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory, grpc_port: int) -> Iterator[Testbed]:
    """A testbed whose gateway serves gRPC too."""
    settings = {GRPC_PORT: str(grpc_port), "DIMEE_MAX_QUEUE_MS": "600000"}
    with start(tmp_path_factory.mktemp("testbed"), **settings) as running:
        yield running


@pytest.fixture
def address(testbed: Testbed, grpc_port: int) -> str:
    """The address of the gateway, as a user gives it to a client."""
    return f"127.0.0.1:{grpc_port}"


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    """A client of the gateway."""
    with triton.InferenceServerClient(address) as one:
        yield one


def text_input(shape: list[int], module: Any = triton) -> Any:
    """Return the input tensor of `TEXTS`, which the client sends as raw contents."""
    one = module.InferInput("text", shape, "BYTES")
    one.set_data_from_numpy(np.array(TEXTS, dtype=np.object_).reshape(shape))
    return one


def check(result: Any, gateway: httpx.Client) -> None:
    """Compare a result with the answers of ``POST /v1/classify`` with the policy mobile."""
    answer = gateway.post("/v1/classify", json={"texts": TEXTS, "policy": "mobile"}).json()
    answers = [item["result"] for item in answer["items"]]
    assert result.as_numpy("label").tolist() == [one["label"].encode() for one in answers]
    names = ("negative", "positive")
    probabilities = [[one["probabilities"][name] for name in names] for one in answers]
    assert np.array_equal(result.as_numpy("probabilities"), np.float32(probabilities))
    assert result.as_numpy("tier").tolist() == [b"mobile", b"mobile"]
    assert result.as_numpy("exit_layer").tolist() == [one["exit_layer"] for one in answers]


def test_server_and_model(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("sst2")
    assert not client.is_model_ready("other")
    assert "binary_tensor_data" in client.get_server_metadata().extensions
    model = client.get_model_metadata("sst2")
    assert client.is_model_ready("sst2", model.versions[0])
    assert [(one.name, one.datatype, list(one.shape)) for one in model.inputs] == [
        ("text", "BYTES", [-1])
    ]
    assert [one.name for one in model.outputs] == NAMES


@pytest.mark.parametrize("shape", [[2], [2, 1]])
@pytest.mark.parametrize("outputs", [None, NAMES])
def test_infer(
    client: triton.InferenceServerClient,
    gateway: httpx.Client,
    shape: list[int],
    outputs: list[str] | None,
) -> None:
    requested = outputs and [triton.InferRequestedOutput(name) for name in outputs]
    result = client.infer(
        "sst2",
        [text_input(shape)],
        outputs=requested,
        request_id="seven",
        parameters={"policy": "mobile", "deadline_ms": 20_000},
    )
    check(result, gateway)
    response = result.get_response()
    assert response.id == "seven"
    assert response.parameters["cost_lambda"].double_param > 0


def test_infer_with_typed_contents(address: str, gateway: httpx.Client) -> None:
    """A client may send ``contents`` in place of ``raw_input_contents``."""
    request = service_pb2.ModelInferRequest(model_name="sst2")
    request.parameters["policy"].string_param = "mobile"
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=[2])
    tensor.contents.bytes_contents.extend(text.encode() for text in TEXTS)
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        response, rpc = infer.with_call(request, timeout=30)
    check(triton.InferResult(response), gateway)
    metadata = dict(rpc.trailing_metadata())
    assert metadata["x-dimee-tier"] == "mobile, mobile"
    assert len(metadata["x-dimee-request-id"].split(", ")) == 2


def test_async_infer(client: triton.InferenceServerClient, gateway: httpx.Client) -> None:
    results: asyncio.Queue[Any] = asyncio.Queue()

    async def collect() -> list[Any]:
        loop = asyncio.get_running_loop()

        def done(result: Any, error: Any) -> None:
            loop.call_soon_threadsafe(results.put_nowait, error or result)

        for _ in range(8):
            client.async_infer(
                "sst2", [text_input([2])], callback=done, headers={"x-dimee-policy": "mobile"}
            )
        return [await results.get() for _ in range(8)]

    for result in asyncio.run(collect()):
        check(result, gateway)


def test_infer_in_asyncio(address: str, gateway: httpx.Client) -> None:
    async def infer() -> list[Any]:
        async with triton_aio.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            inputs, parameters = [text_input([2, 1], triton_aio)], {"policy": "mobile"}
            calls = [client.infer("sst2", inputs, parameters=parameters) for _ in range(8)]
            return await asyncio.gather(*calls)

    for result in asyncio.run(infer()):
        check(result, gateway)


def test_classification_extension(client: triton.InferenceServerClient) -> None:
    requested = [triton.InferRequestedOutput("probabilities", class_count=1)]
    result = client.infer("sst2", [text_input([2])], outputs=requested)
    _, index, label = result.as_numpy("probabilities")[0][0].decode().split(":")
    assert (index, label) == ("1", "positive")


def test_errors_are_status_codes(client: triton.InferenceServerClient) -> None:
    for model, parameters, code, message in (
        ("other", {}, "NOT_FOUND", "is not served; use 'sst2'"),
        ("sst2", {"policy": "unknown"}, "INVALID_ARGUMENT", "policy: 'unknown' is not known"),
        ("sst2", {"deadline_ms": 0.5}, "INVALID_ARGUMENT", "deadline_ms"),
    ):
        with pytest.raises(InferenceServerException, match=message) as refused:
            client.infer(model, [text_input([2])], parameters=parameters)
        assert refused.value.status() == f"StatusCode.{code}"
    for name, version in (("sst2/ready", ""), ("", ""), ("sst2", "other"), ("sst2", "x/ready")):
        with pytest.raises(InferenceServerException) as refused:
            client.get_model_metadata(name, version)
        assert refused.value.status() == "StatusCode.NOT_FOUND"


@pytest.mark.parametrize("tier", ["edge", "cloud"])
def test_every_tier_answers(client: triton.InferenceServerClient, tier: str) -> None:
    result = client.infer("sst2", [text_input([2])], parameters={"policy": tier})
    assert result.as_numpy("tier").tolist() == [tier.encode()] * 2


def raw_call(address: str, request: bytes, **options: Any) -> grpc.StatusCode:
    """Send bytes as ``ModelInfer``, and return the status."""
    with grpc.insecure_channel(address) as channel:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        try:
            infer(request, timeout=30, **options)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def wrong_requests() -> Iterator[bytes]:
    """Yield messages that are refused: no message, too much data, data given twice."""
    message = service_pb2.ModelInferRequest
    yield message(model_name="sst2").SerializeToString()
    for raw in ([b"\xff\xff\xff\xff"], [b"\1\0\0\0a", b""], [b"\1\0\0\0\xff"], [b""]):
        request = message(model_name="sst2", raw_input_contents=raw)
        request.inputs.add(name="text", datatype="BYTES", shape=[1])
        yield request.SerializeToString()
    request = message(model_name="sst2", raw_input_contents=[b"\1\0\0\0a"])
    tensor = request.inputs.add(name="text", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(b"a")
    yield request.SerializeToString()
    for field in ({"datatype": "FP32"}, {"shape": [-1]}, {"shape": [1] * 9}, {"name": "other"}):
        request = message(model_name="sst2")
        fields = {"name": "text", "datatype": "BYTES", "shape": [1]} | field
        request.inputs.add(**fields).contents.bytes_contents.append(b"a")
        yield request.SerializeToString()


def test_wrong_messages(address: str) -> None:
    for request in wrong_requests():
        assert raw_call(address, request) is grpc.StatusCode.INVALID_ARGUMENT
    large = service_pb2.ModelInferRequest(model_name="x" * 5_000_000).SerializeToString()
    assert raw_call(address, large) is grpc.StatusCode.RESOURCE_EXHAUSTED
    many = service_pb2.ModelInferRequest(model_name="sst2")
    tensor = many.inputs.add(name="text", datatype="BYTES", shape=[1_001])
    tensor.contents.bytes_contents.extend([b"a"] * 1_001)
    assert raw_call(address, many.SerializeToString()) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert raw_call(address, b"\xff\xff\xff") is grpc.StatusCode.INVALID_ARGUMENT
    bomb = service_pb2.ModelInferRequest(model_name="x" * 20_000_000).SerializeToString()
    squeezed = raw_call(address, bomb, compression=grpc.Compression.Gzip)
    assert squeezed is grpc.StatusCode.UNIMPLEMENTED, "it would be decompressed before any limit"
    assert triton.InferenceServerClient(address).is_server_live()


def test_any_message_gets_an_answer_or_an_error(address: str) -> None:
    """No message ends in an internal error."""
    names = st.sampled_from(["text", "pair", "", "é"])
    datas = st.sampled_from([b"", b"\1\0\0\0a", b"\0\0\0\0", b"\xff"]) | st.binary(max_size=9)
    shapes = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 2), max_size=3)
    datatypes = st.sampled_from(["BYTES", "FP32", ""])
    tensors = st.tuples(names, datatypes, shapes, st.lists(datas, max_size=3))
    options = st.sampled_from(["policy", "deadline_ms", "binary_data_output", "timeout", "x"])
    values = st.booleans() | st.integers(0, 2**63 - 1) | st.floats() | st.text(max_size=4)
    codes = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}

    @settings(max_examples=150, deadline=None, database=None, derandomize=True)
    @given(
        st.sampled_from(["sst2", "", "other", "sst2/infer"]),
        st.lists(tensors, max_size=2),
        st.lists(datas, max_size=2),
        st.dictionaries(options, values, max_size=2),
        st.lists(st.sampled_from([*NAMES, "other"]), max_size=2),
    )
    def check(model: str, inputs: Any, raw: Any, parameters: Any, outputs: Any) -> None:
        request = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=raw)
        for name, datatype, shape, contents in inputs:
            tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
            tensor.contents.bytes_contents.extend(contents)
        for name in outputs:
            request.outputs.add(name=name)
        kinds = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
        for name, value in parameters.items():
            setattr(request.parameters[name], kinds[type(value)], value)
        assert raw_call(address, request.SerializeToString()).name in codes

    check()


def test_every_call_is_in_the_ledger(
    testbed: Testbed, client: triton.InferenceServerClient
) -> None:
    trace_id, ledger = "4bf92f3577b34da6a3ce929d0e0e4736", testbed.roles["ledger"].url
    headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    result = client.infer("sst2", [text_input([2])], headers=headers)
    request_ids = result.get_response().parameters["request_id"].string_param.split(", ")
    check_recorded(ledger, request_ids)
    recorded = httpx.get(f"{ledger}/v1/requests/{request_ids[0]}", trust_env=False)
    assert trace_id in recorded.text


def test_token_is_required_of_every_client(tmp_path: Path) -> None:
    tokens, port = tmp_path / "tokens.jsonl", free_ports(1)[0]
    secret, _ = new_token(tokens, "app", ["classify"])
    service, _ = new_token(tokens, "service", ["infer", "ledger:write"])
    settings = {"DIMEE_TOKENS": str(tokens), "DIMEE_TOKEN": service, GRPC_PORT: str(port)}
    with (
        start(tmp_path / "state", **settings) as running,
        triton.InferenceServerClient(f"127.0.0.1:{port}") as client,
    ):
        assert client.is_server_ready()
        for headers, code in (
            ({}, "UNAUTHENTICATED"),
            ({"authorization": "Bearer wrong"}, "UNAUTHENTICATED"),
            ({"authorization": f"Bearer {service}"}, "PERMISSION_DENIED"),
        ):
            with pytest.raises(InferenceServerException) as refused:
                client.infer("sst2", [text_input([2])], headers=headers)
            assert refused.value.status() == f"StatusCode.{code}"
        headers = {"authorization": f"Bearer {secret}"}
        result = client.infer("sst2", [text_input([2])], headers=headers)
        assert result.as_numpy("tier").size == 2
        url = running.roles["mobile"].url
        assert InferenceClient(url, token=secret).text_classification("fine")
        with pytest.raises(HfHubHTTPError, match="the token is unknown"):
            InferenceClient(url, token="wrong").text_classification("fine")
        with triton_http.InferenceServerClient(url.removeprefix("http://")) as http:
            one = triton_http.InferInput("text", [1], "BYTES")
            one.set_data_from_numpy(np.array(["fine"], dtype=np.object_))
            assert http.is_server_ready()
            assert http.infer("sst2", [one], headers=headers).as_numpy("tier").size == 1
            with pytest.raises(InferenceServerException, match="a token is needed"):
                http.infer("sst2", [one])
