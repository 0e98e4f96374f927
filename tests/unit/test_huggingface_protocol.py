"""The Hugging Face endpoints of the gateway: shapes, parameters, options, headers and errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from mobile_client.gateway.protocols.huggingface import Inputs, Shape, read_inputs
from shared.errors import InvalidInput
from testbed.chaos.fuzz import any_json
from tests.support.protocol_gateway import classification, json_bytes, mobile_gateway

TEXT = "a gripping, funny film"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A gateway without other tiers, whose mobile answers."""
    with mobile_gateway(tmp_path_factory.mktemp("state")) as client:
        yield client


def reference(gateway: TestClient, text: str) -> list[dict[str, Any]]:
    """Return the labels of ``POST /v1/classify``, the most probable first."""
    probabilities = classification(gateway, text)["probabilities"]
    rows = sorted(probabilities.items(), key=lambda row: -row[1])
    return [{"label": label, "score": score} for label, score in rows]


@pytest.mark.parametrize("path", ["/", "/predict"])
def test_tei_answers_flat_for_one_text_and_nested_for_a_batch(
    gateway: TestClient, path: str
) -> None:
    one, other = reference(gateway, TEXT), reference(gateway, "a dull film")
    assert gateway.post(path, json={"inputs": TEXT}).json() == one
    assert gateway.post(path, json={"inputs": [TEXT]}).json() == one
    batch = gateway.post(path, json={"inputs": [[TEXT], ["a dull film"]], "truncate": True})
    assert batch.json() == [one, other]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", {"parameters": {}}),
        ("/models/sst2", {}),
        ("/models/sst2", {"parameters": {"top_k": 5}, "options": {"wait_for_model": True}}),
    ],
)
def test_inference_api_answers_a_list_for_each_text(
    gateway: TestClient, path: str, body: dict[str, Any]
) -> None:
    one, other = reference(gateway, TEXT), reference(gateway, "a dull film")
    assert gateway.post(path, json={"inputs": TEXT} | body).json() == [one]
    assert gateway.post(path, json={"inputs": [TEXT, "a dull film"]} | body).json() == [one, other]


def test_two_strings_are_a_pair_for_tei_and_two_texts_for_the_inference_api() -> None:
    assert read_inputs(["a", "b"], "tei") == Inputs(["a"], ["b"], single=True)
    assert read_inputs(["a", "b"], "inference-api") == Inputs(["a", "b"], None, single=False)
    pair = {"text": "a", "text_pair": "b"}
    assert read_inputs([["a", "b"]], "tei") == Inputs(["a"], ["b"], single=False)
    assert read_inputs(pair, "inference-api") == Inputs(["a"], ["b"], single=False)
    assert read_inputs([pair, ["c", "d"]], "tei") == Inputs(["a", "c"], ["b", "d"], single=False)


@pytest.mark.parametrize(
    "inputs",
    [None, 1, [], [[]], [["a", "b", "c"]], [["a"], ["b", "c"]], [1], {"text": 1}, [["a"], 1]],
)
@pytest.mark.parametrize("shape", ["tei", "inference-api"])
def test_other_forms_are_refused(inputs: Any, shape: Shape) -> None:
    with pytest.raises(InvalidInput, match=r"^inputs"):
        read_inputs(inputs, shape)


@pytest.mark.parametrize(
    ("parameters", "count"),
    [
        ({}, 2),
        ({"top_k": 1}, 1),
        ({"top_k": 9}, 2),
        ({"return_all_scores": False}, 1),
        ({"return_all_scores": True}, 2),
        ({"function_to_apply": "softmax"}, 2),
        ({"truncation": True}, 2),
    ],
)
def test_parameters(gateway: TestClient, parameters: dict[str, Any], count: int) -> None:
    answer = gateway.post("/", json={"inputs": TEXT, "parameters": parameters})
    assert answer.json() == [reference(gateway, TEXT)[:count]]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 422, "inputs"),
        ({"inputs": " "}, 422, "inputs.0"),
        ({"inputs": ["a", "b"]}, 422, "inputs"),
        ({"inputs": TEXT, "raw_scores": True}, 422, "raw_scores"),
        ({"inputs": TEXT, "parameters": {"function_to_apply": "none"}}, 422, "function_to_apply"),
        (
            {"inputs": TEXT, "parameters": {"function_to_apply": "sigmoid"}},
            422,
            "function_to_apply",
        ),
        ({"inputs": TEXT, "parameters": {"top_k": 0}}, 422, "top_k"),
        ({"inputs": TEXT, "parameters": {"top_k": True}}, 422, "top_k"),
        ({"inputs": TEXT, "parameters": {"max_length": 9}}, 422, "parameters.max_length"),
        ({"inputs": TEXT, "parameters": 1}, 422, "parameters"),
        ({"inputs": TEXT, "other": 1}, 422, "other"),
        ({"inputs": "good " * 400, "truncate": False}, 413, "inputs.0"),
        ({"inputs": "x" * 20_001}, 413, "inputs.0"),
        ({"inputs": [["a"]] * 1_001}, 413, "inputs"),
        ({"inputs": TEXT, "parameters": {"policy": "unknown"}}, 422, "policy"),
        ({"inputs": TEXT, "parameters": {"mode": "unknown"}}, 422, "mode"),
        ({"inputs": TEXT, "parameters": {"deadline_ms": "1"}}, 422, "deadline_ms"),
    ],
)
def test_errors_have_the_shape_of_tei(
    gateway: TestClient, body: dict[str, Any], status: int, field: str
) -> None:
    answer = gateway.post("/", json=body)
    assert answer.status_code == status
    content = answer.json()
    assert set(content) == {"error", "error_type"}
    assert content["error"].startswith(f"{field}:")
    assert content["error_type"] == "validation"


def test_errors_of_the_server_have_the_shape_of_tei(gateway: TestClient) -> None:
    for answer, status in (
        (gateway.put("/predict"), 405),
        (gateway.put("/"), 405),
        (gateway.post("/models/other", json={"inputs": TEXT}), 404),
        (gateway.post("/predict", content=b"["), 422),
        (gateway.post("/predict", content=b"[" * 100_000), 422),
        (gateway.post("/predict", content=b'{"inputs": NaN}'), 422),
        (gateway.post("/predict", content=b"x" * 5_000_000), 413),
        (gateway.post("/predict", content=b"[" + b"1," * 5_000 + b"1]"), 413),
    ):
        assert answer.status_code == status
        assert isinstance(answer.json()["error"], str)


def test_options_come_from_headers_and_parameters(gateway: TestClient) -> None:
    headers = {"x-dimee-policy": "unknown"}
    assert gateway.post("/predict", json={"inputs": TEXT}, headers=headers).status_code == 422
    body = {"inputs": TEXT, "parameters": {"policy": "mobile"}}
    answer = gateway.post("/predict", json=body, headers=headers)
    assert answer.status_code == 200, "a parameter takes precedence over the header"
    wrong = {"x-dimee-deadline-ms": "soon"}
    answer = gateway.post("/predict", json={"inputs": TEXT}, headers=wrong)
    assert answer.json()["error"] == "x-dimee-deadline-ms: must be a number"


def test_answers_tell_tier_exit_layer_cost_and_request_in_headers(gateway: TestClient) -> None:
    headers = gateway.post("/predict", json={"inputs": [[TEXT], ["a dull film"]]}).headers
    assert headers["x-dimee-tier"] == "mobile, mobile"
    assert len(set(headers["x-dimee-request-id"].split(", "))) == 2
    layers = [int(layer) for layer in headers["x-dimee-exit-layer"].split(", ")]
    assert float(headers["x-dimee-cost-lambda"]) == 3.0 * sum(layers)
    many = gateway.post("/predict", json={"inputs": [[TEXT]] * 33})
    assert [name for name in many.headers if "dimee" in name] == ["x-dimee-cost-lambda"]


def test_client_is_told_health_and_model(gateway: TestClient) -> None:
    assert gateway.get("/health").status_code == 200
    assert gateway.get("/info").json()["model_id"] == "sst2"


def test_any_json_gets_an_answer_or_an_error(gateway: TestClient) -> None:
    """No body ends in an internal error."""
    fields = st.sampled_from(["inputs", "parameters", "truncate", "raw_scores", "top_k", "policy"])
    bodies = st.dictionaries(fields, any_json, max_size=4) | any_json

    @settings(max_examples=150, deadline=None, database=None, derandomize=True)
    @given(bodies, st.sampled_from(["/", "/predict", "/models/sst2"]))
    def check(body: Any, path: str) -> None:
        answer = gateway.post(path, content=json_bytes(body))
        assert answer.status_code in (200, 413, 422), answer.text
        if answer.status_code != 200:
            assert isinstance(answer.json()["error"], str)

    check()
