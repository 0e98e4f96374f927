"""``POST /classify`` of vLLM and of infinity: shapes, fields, errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.chaos.fuzz import any_json
from tests.support.protocol_gateway import classification, json_bytes, mobile_gateway

TEXT = "a gripping, funny film"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A gateway without other tiers, whose mobile answers."""
    with mobile_gateway(tmp_path_factory.mktemp("state")) as client:
        yield client


@pytest.mark.parametrize(
    "body",
    [
        {"input": TEXT},
        {"input": [TEXT], "model": "sst2"},
        {"input": [TEXT], "use_activation": True, "add_special_tokens": True, "user": "me"},
        {"input": TEXT, "truncate_prompt_tokens": -1, "request_id": "seven"},
    ],
)
def test_vllm(gateway: TestClient, body: dict[str, Any]) -> None:
    answer = gateway.post("/classify", json=body)
    result = classification(gateway, TEXT)
    content = answer.json()
    (row,) = content.pop("data")
    probabilities = [result["probabilities"][name] for name in ("negative", "positive")]
    assert row == {"index": 0, "label": result["label"], "probs": probabilities, "num_classes": 2}
    request_id = body.get("request_id", answer.headers["x-dimee-request-id"])
    assert content["id"] == f"classify-{request_id}"
    assert (content["object"], content["model"]) == ("list", "sst2")
    assert content["usage"]["prompt_tokens"] == result["tokens"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/classify", {"raw_scores": False, "model": "default/not-specified"}),
        ("/infinity/classify", {}),
    ],
)
def test_infinity(gateway: TestClient, path: str, body: dict[str, Any]) -> None:
    content = gateway.post(path, json={"input": [TEXT, "dull"]} | body).json()
    expected = [
        sorted(classification(gateway, text)["probabilities"].items(), key=lambda row: -row[1])
        for text in (TEXT, "dull")
    ]
    assert [[(row["label"], row["score"]) for row in rows] for rows in content["data"]] == expected
    assert (content["object"], content["model"]) == ("classify", "sst2")
    assert set(content) == {"object", "data", "model", "usage", "id", "created"}


def test_models_are_listed(gateway: TestClient) -> None:
    for path in ("/v1/models", "/infinity/models"):
        assert gateway.get(path).json()["data"][0]["id"] == "sst2"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 400, "input"),
        ({"input": []}, 400, "input"),
        ({"input": [1, 2]}, 400, "input"),
        ({"input": [[1], [2]]}, 400, "input"),
        ({"input": " "}, 400, "input.0"),
        ({"input": TEXT, "model": "other"}, 404, "model"),
        ({"input": TEXT, "model": 1}, 400, "model"),
        ({"input": TEXT, "use_activation": False}, 400, "use_activation"),
        ({"input": TEXT, "raw_scores": True}, 400, "raw_scores"),
        ({"input": TEXT, "add_special_tokens": False}, 400, "add_special_tokens"),
        ({"input": TEXT, "truncate_prompt_tokens": 5}, 400, "truncate_prompt_tokens"),
        ({"input": TEXT, "request_id": "x" * 65}, 400, "request_id"),
        ({"messages": []}, 400, "messages"),
        ({"input": TEXT, "other": 1}, 400, "other"),
        ({"input": TEXT, "policy": "unknown"}, 400, "policy"),
        ({"input": ["a"] * 1_001}, 413, "input"),
    ],
)
def test_errors_have_the_shape_of_openai(
    gateway: TestClient, body: dict[str, Any], status: int, field: str
) -> None:
    answer = gateway.post("/classify", json=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["param"] or "model") == (status, field)
    assert error["message"].startswith(f"{field}:")


def test_identifier_that_no_answer_can_repeat_is_refused(gateway: TestClient) -> None:
    answer = gateway.post("/classify", content='{"input": "a", "request_id": "\\ud800"}')
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("request_id: holds a lone surrogate")


def test_any_json_gets_an_answer_or_an_error(gateway: TestClient) -> None:
    """No body ends in an internal error."""
    fields = st.sampled_from(["input", "model", "raw_scores", "request_id", "policy", "softmax"])
    bodies = st.dictionaries(fields, any_json, max_size=4) | any_json

    @settings(max_examples=150, deadline=None, database=None, derandomize=True)
    @given(bodies, st.sampled_from(["/classify", "/infinity/classify"]))
    def check(body: Any, path: str) -> None:
        answer = gateway.post(path, content=json_bytes(body))
        assert answer.status_code in (200, 400, 404, 413), answer.text
        if answer.status_code != 200:
            assert isinstance(answer.json()["error"]["message"], str)

    check()
