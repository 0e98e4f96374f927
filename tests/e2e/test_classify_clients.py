"""The requests that the documentation of vLLM and infinity publishes, against the gateway."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import httpx
import pytest

from testbed.processes.processes import Testbed
from tests.support.recorded import check_recorded

PROMPTS = ["Hello, my name is", "The capital of France is", "a gripping, funny film"]
GO_EMOTIONS = {"input": ["I am not having a great day."], "raw_scores": False}


def test_example_client_of_vllm(gateway: httpx.Client) -> None:
    """It asks for the model's name first."""
    model = gateway.get("/v1/models").json()["data"][0]["id"]
    headers = {"accept": "application/json", "Content-Type": "application/json"}
    payload = {"model": model, "input": PROMPTS}
    answer = gateway.post("/classify", headers=headers, json=payload).json()
    assert [row["index"] for row in answer["data"]] == [0, 1, 2]
    for row in answer["data"]:
        assert (row["num_classes"], len(row["probs"])) == (2, 2)
        assert row["label"] == ["negative", "positive"][row["probs"].index(max(row["probs"]))]


@pytest.mark.parametrize("tier", ["mobile", "edge", "cloud"])
def test_infinity_gets_all_probabilities_from_every_tier(gateway: httpx.Client, tier: str) -> None:
    body = GO_EMOTIONS | {"policy": tier, "deadline_ms": 20_000}
    answer = gateway.post("/classify", json=body)
    assert answer.headers["x-dimee-tier"] == tier
    (rows,) = answer.json()["data"]
    assert sum(row["score"] for row in rows) == pytest.approx(1.0, abs=1e-5)


def curl(url: str, body: Any) -> Any:
    """Send ``body`` with curl, and return the answer."""
    done = subprocess.run(
        ["curl", "-s", url, "-H", "Content-Type: application/json", "-d", json.dumps(body)],
        capture_output=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_published_examples_with_curl(testbed: Testbed) -> None:
    url = testbed.roles["mobile"].url
    assert curl(f"{url}/classify", {"model": "sst2", "input": PROMPTS})["object"] == "list"
    assert curl(f"{url}/classify", GO_EMOTIONS)["object"] == "classify"
    wrong = curl(f"{url}/classify", {"model": "other", "input": "a"})
    assert wrong["error"]["code"] == 404


def test_every_call_is_in_the_ledger(testbed: Testbed, gateway: httpx.Client) -> None:
    answer = gateway.post("/classify", json={"input": PROMPTS})
    request_ids = answer.headers["x-dimee-request-id"].split(", ")
    check_recorded(testbed.roles["ledger"].url, request_ids)
