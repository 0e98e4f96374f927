"""The gateway's protocols with a bundle of pairs."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.support.protocol_gateway import mobile_gateway
from tests.support.tiny_bundles import export_pair_bundle

TEXTS, SECONDS = ["first", "third"], ["second", "fourth"]
ROWS = [list(row) for row in zip(TEXTS, SECONDS, strict=True)]
INFER = "/v2/models/mrpc/infer"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Iterator[TestClient]:
    """A gateway of a bundle of pairs."""
    bundle = export_pair_bundle(tmp_path_factory.mktemp("mrpc"), tiny_encoder)
    with mobile_gateway(tmp_path_factory.mktemp("state"), bundle=bundle) as client:
        yield client


@pytest.fixture(scope="module")
def expected(gateway: TestClient) -> list[dict[str, float]]:
    """The probabilities of both pairs, from ``POST /v1/classify``."""
    answer = gateway.post("/v1/classify", json={"texts": TEXTS, "pairs": SECONDS}).json()
    return [item["result"]["probabilities"] for item in answer["items"]]


def scores(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {row["label"]: row["score"] for row in rows}


def test_huggingface(gateway: TestClient, expected: list[dict[str, float]]) -> None:
    assert scores(gateway.post("/predict", json={"inputs": ROWS[0]}).json()) == expected[0]
    assert list(map(scores, gateway.post("/predict", json={"inputs": ROWS}).json())) == expected
    pair = {"text": TEXTS[0], "text_pair": SECONDS[0]}
    answer = gateway.post("/", json={"inputs": pair, "parameters": {}}).json()
    assert list(map(scores, answer)) == expected[:1]
    refused = gateway.post("/predict", json={"inputs": "alone"})
    assert refused.status_code == 422
    assert refused.json()["error"].startswith("inputs: the task mrpc needs a second text")


def tensor(name: str, texts: list[str], data: bool) -> tuple[dict[str, Any], bytes]:
    """Return an input tensor with its data, and the same for the binary extension."""
    one: dict[str, Any] = {"name": name, "datatype": "BYTES", "shape": [len(texts)]}
    packed = b"".join(struct.pack("<I", len(text)) + text.encode() for text in texts)
    if data:
        return one | {"data": texts}, b""
    return one | {"parameters": {"binary_data_size": len(packed)}}, packed


@pytest.mark.parametrize("forms", [(True, True), (False, False), (True, False), (False, True)])
def test_open_inference(
    gateway: TestClient, expected: list[dict[str, float]], forms: tuple[bool, bool]
) -> None:
    """Each of the two tensors may be JSON or binary, in any order."""
    assert [one["name"] for one in gateway.get("/v2/models/mrpc").json()["inputs"]] == [
        "text",
        "pair",
    ]
    pair, pair_data = tensor("pair", SECONDS, forms[0])
    text, text_data = tensor("text", TEXTS, forms[1])
    head = json.dumps({"inputs": [pair, text]}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    answer = gateway.post(INFER, content=head + pair_data + text_data, headers=headers).json()
    outputs = {one["name"]: one for one in answer["outputs"]}
    labels = gateway.get("/v1/bundle").json()["labels"]
    assert outputs["probabilities"]["data"] == [row[label] for row in expected for label in labels]


def test_wrong_pairs(gateway: TestClient) -> None:
    text, _ = tensor("text", TEXTS, True)
    for inputs, message in (
        ([text], "inputs: this model has the inputs text and pair"),
        ([text, tensor("pair", ["one"], True)[0]], "inputs.pair: 1 for 2 texts"),
    ):
        answer = gateway.post(INFER, json={"inputs": inputs})
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(message)
    answer = gateway.post("/classify", json={"input": "alone"})
    assert answer.json()["error"]["message"].startswith("input: the task mrpc needs a second text")
