"""`huggingface_hub`, unmodified, and the requests that text-embeddings-inference documents."""

from __future__ import annotations

import asyncio
import math
import shutil
import subprocess

import httpx
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from testbed.processes.processes import Testbed
from tests.support.recorded import check_recorded

TEXT = "a gripping, funny film"


@pytest.fixture
def url(testbed: Testbed) -> str:
    """The address of the gateway, as a user gives it to a client."""
    return testbed.roles["mobile"].url


@pytest.mark.parametrize("path", ["", "/", "/models/sst2"])
def test_text_classification(url: str, gateway: httpx.Client, path: str) -> None:
    answer = gateway.post("/v1/classify", json={"texts": [TEXT], "policy": "mobile"}).json()
    expected = answer["items"][0]["result"]["probabilities"]
    client = InferenceClient(model=url + path, headers={"x-dimee-policy": "mobile"})
    scores = {one.label: one.score for one in client.text_classification(TEXT)}
    assert scores == expected
    (best,) = client.text_classification(TEXT, top_k=1, function_to_apply="softmax")
    assert best.label == answer["items"][0]["result"]["label"]


def test_text_classification_async(url: str) -> None:
    async def classify() -> list[str]:
        async with AsyncInferenceClient(model=url) as client:
            answers = await asyncio.gather(*[client.text_classification(TEXT) for _ in range(8)])
        return [answer[0].label for answer in answers]

    assert asyncio.run(classify()) == ["positive"] * 8


def test_health_and_model(url: str) -> None:
    client = InferenceClient(model=url, provider="hf-inference")
    assert client.health_check()
    assert client.get_endpoint_info()["model_id"] == "sst2"


def test_errors_reach_the_caller_with_their_message(url: str) -> None:
    client = InferenceClient(model=url)
    with pytest.raises(HfHubHTTPError, match="only softmax is available") as refused:
        client.text_classification(TEXT, function_to_apply="none")
    assert refused.value.response.status_code == 422
    with pytest.raises(HfHubHTTPError, match="is not served; use 'sst2'"):
        InferenceClient(model=f"{url}/models/other").text_classification(TEXT)


@pytest.mark.parametrize("tier", ["mobile", "edge", "cloud"])
def test_tei_gets_all_probabilities_from_every_tier(gateway: httpx.Client, tier: str) -> None:
    headers = {"x-dimee-policy": tier, "x-dimee-deadline-ms": "20000"}
    answer = gateway.post("/predict", json={"inputs": [[TEXT], ["dull"]]}, headers=headers)
    assert answer.headers["x-dimee-tier"] == f"{tier}, {tier}"
    for rows in answer.json():
        assert [row["label"] for row in rows] in (
            ["positive", "negative"],
            ["negative", "positive"],
        )
        assert math.isclose(sum(row["score"] for row in rows), 1.0, abs_tol=1e-5)
        assert rows[0]["score"] >= rows[1]["score"]


def json_arguments(body: str) -> list[str]:
    """Return curl's arguments for a JSON body."""
    return ["-d", body, "-H", "Content-Type: application/json"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_published_example_of_tei_with_curl(url: str) -> None:
    done = subprocess.run(
        ["curl", "-s", f"{url}/predict", "-X", "POST", *json_arguments('{"inputs":"I like you."}')],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith(b'[{"label":"positive","score":0.')


def test_every_call_is_in_the_ledger(testbed: Testbed, url: str, gateway: httpx.Client) -> None:
    headers = gateway.post("/predict", json={"inputs": [[TEXT], ["dull"]]}).headers
    request_ids = headers["x-dimee-request-id"].split(", ")
    check_recorded(testbed.roles["ledger"].url, request_ids)


def test_trace_of_the_caller_is_in_the_ledger(testbed: Testbed, gateway: httpx.Client) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    answer = gateway.post("/predict", json={"inputs": TEXT}, headers=headers)
    request_id, ledger = answer.headers["x-dimee-request-id"], testbed.roles["ledger"].url
    check_recorded(ledger, [request_id])
    recorded = httpx.get(f"{ledger}/v1/requests/{request_id}", trust_env=False).text
    assert trace_id in recorded
