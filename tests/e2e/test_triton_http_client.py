"""`tritonclient[http]`, unmodified, sync and async, against the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from testbed.processes.processes import Testbed
from tests.support.recorded import check_recorded

TEXTS = ["a gripping, funny film", "a dull film"]
NAMES = ["label", "probabilities", "tier", "exit_layer"]


@pytest.fixture
def address(testbed: Testbed) -> str:
    """The address of the gateway, as a user gives it to a client."""
    return testbed.roles["mobile"].url.removeprefix("http://")


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    """A client of the gateway."""
    with triton.InferenceServerClient(address, network_timeout=60.0) as one:
        yield one


def text_input(shape: list[int], binary: bool, module: Any = triton) -> Any:
    """Return the input tensor of `TEXTS`."""
    one = module.InferInput("text", shape, "BYTES")
    one.set_data_from_numpy(np.array(TEXTS, dtype=np.object_).reshape(shape), binary_data=binary)
    return one


def check(result: Any, gateway: httpx.Client) -> None:
    """Compare a result with the answers of ``POST /v1/classify`` with the policy mobile."""
    answer = gateway.post("/v1/classify", json={"texts": TEXTS, "policy": "mobile"}).json()
    answers = [item["result"] for item in answer["items"]]
    labels = result.as_numpy("label")
    assert labels.dtype == np.object_
    assert [_text(label) for label in labels] == [one["label"] for one in answers]
    probabilities = [
        [one["probabilities"][name] for name in ("negative", "positive")] for one in answers
    ]
    assert np.array_equal(result.as_numpy("probabilities"), np.float32(probabilities))
    assert [_text(tier) for tier in result.as_numpy("tier")] == ["mobile", "mobile"]
    layers = result.as_numpy("exit_layer")
    assert layers.dtype == np.int32
    assert layers.tolist() == [one["exit_layer"] for one in answers]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def test_server_and_model(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("sst2")
    assert not client.is_model_ready("other")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    model = client.get_model_metadata("sst2")
    assert client.is_model_ready("sst2", model["versions"][0])
    assert [one["name"] for one in model["outputs"]] == NAMES


@pytest.mark.parametrize("shape", [[2], [2, 1]])
@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [None, True, False])
def test_infer(
    client: triton.InferenceServerClient,
    gateway: httpx.Client,
    shape: list[int],
    binary_in: bool,
    binary_out: bool | None,
) -> None:
    """Without requested outputs, the client asks for all of them as binary data."""
    requested = None
    if binary_out is not None:
        requested = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in NAMES]
    inputs = [text_input(shape, binary_in)]
    result = client.infer(
        "sst2", inputs, outputs=requested, request_id="seven", parameters={"policy": "mobile"}
    )
    check(result, gateway)
    assert result.get_response()["id"] == "seven"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_infer_compressed(
    client: triton.InferenceServerClient, gateway: httpx.Client, algorithm: str
) -> None:
    result = client.infer(
        "sst2",
        [text_input([2], True)],
        headers={"x-dimee-policy": "mobile"},
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    check(result, gateway)


def test_async_infer(client: triton.InferenceServerClient, gateway: httpx.Client) -> None:
    parameters = {"policy": "mobile"}
    pending = [
        client.async_infer("sst2", [text_input([2], True)], parameters=parameters) for _ in range(8)
    ]
    for one in pending:
        check(one.get_result(), gateway)


def test_infer_in_asyncio(address: str, gateway: httpx.Client) -> None:
    async def infer() -> list[Any]:
        async with triton_aio.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            assert (await client.get_model_metadata("sst2"))["name"] == "sst2"
            inputs = [text_input([2, 1], True, triton_aio)]
            headers = {"x-dimee-policy": "mobile"}
            calls = [client.infer("sst2", inputs, headers=headers) for _ in range(8)]
            return await asyncio.gather(*calls)

    for result in asyncio.run(infer()):
        check(result, gateway)


def test_classification_extension(client: triton.InferenceServerClient) -> None:
    requested = [triton.InferRequestedOutput("probabilities", class_count=1)]
    result = client.infer("sst2", [text_input([2], True)], outputs=requested)
    score, index, label = result.as_numpy("probabilities")[0][0].decode().split(":")
    assert (index, label) == ("1", "positive")
    assert 0.5 <= float(score) <= 1


def test_errors_reach_the_caller_with_their_message(client: triton.InferenceServerClient) -> None:
    for model, parameters, status, message in (
        ("other", {}, "404", "is not served; use 'sst2'"),
        ("sst2", {"policy": "unknown"}, "400", "policy: 'unknown' is not known"),
    ):
        with pytest.raises(InferenceServerException, match=message) as refused:
            client.infer(model, [text_input([2], True)], parameters=parameters)
        assert refused.value.status() == status


@pytest.mark.parametrize("tier", ["edge", "cloud"])
def test_every_tier_answers(client: triton.InferenceServerClient, tier: str) -> None:
    parameters = {"policy": tier, "deadline_ms": 20_000}
    result = client.infer("sst2", [text_input([2], True)], parameters=parameters)
    assert result.as_numpy("tier").tolist() == [tier.encode()] * 2
    assert np.allclose(result.as_numpy("probabilities").sum(axis=1), 1.0)
    assert result.get_response()["parameters"]["cost_lambda"] > 0


def test_every_call_is_in_the_ledger(
    testbed: Testbed, client: triton.InferenceServerClient
) -> None:
    result = client.infer("sst2", [text_input([2], True)])
    request_ids = result.get_response()["parameters"]["request_id"].split(", ")
    check_recorded(testbed.roles["ledger"].url, request_ids)
