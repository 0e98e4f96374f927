"""Edge and cloud with the runtime ``cuda`` answer over HTTP as with onnxruntime.

The workers run it on torch's CPU path, which no setting chooses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from cloud_server.app import create_app as create_cloud
from cloud_server.settings import CloudSettings
from edge_server.app import create_app as create_edge
from edge_server.settings import EdgeSettings
from shared.bundle.loading import Bundle
from shared.domain import LayerRange
from shared.errors import BundleError
from shared.inference.classifier import Classifier
from shared.inference.codec import MEDIA_TYPE, encode
from shared.inference.devices import CPU, TORCH_CPU, ComputeDevice
from testbed.texts import sample_sentences
from tests.support.certificates import written
from tests.support.paths import BUNDLE
from tests.support.servers import serving

TEXTS = sample_sentences()[::4]
CLOSE = 0.1
"""Largest difference of a confidence from onnxruntime's, which rounds inputs to 8 bits."""
ALPHA = 0.9


def settings_of(folder: Path) -> dict[str, Any]:
    return {"bundle": BUNDLE, "state_dir": folder, "ledger_url": "off", "edge_layers": 6}


def body(number: int, text: str) -> dict[str, Any]:
    return {
        "request_id": f"r{number}",
        "attempt_id": f"a{number}",
        "text": text,
        "alpha": ALPHA,
        "deadline_ms": 60_000,
    }


async def answers(
    app: FastAPI, state: bytes | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return ``/readyz`` of a served tier, and its answers to `TEXTS`, sent at once.

    The last answer is that to ``state``, the output of layer 2 for the first text.
    """
    async with serving(app) as (_, port):
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=600) as http:
            ready = (await http.get("/readyz")).json()
            calls = [http.post("/v1/infer", json=body(i, text)) for i, text in enumerate(TEXTS)]
            if state is not None:
                headers = {"dimee-request-id": "s", "dimee-attempt-id": "s"}
                headers |= {"dimee-deadline-ms": "60000", "content-type": MEDIA_TYPE}
                calls.append(http.post("/v1/resume", content=state, headers=headers))
            responses = await asyncio.gather(*calls)
    for response in responses:
        assert response.status_code == 200, response.text
    return ready, [response.json() for response in responses]


@pytest.fixture(scope="module")
def state(bundle: Bundle) -> bytes:
    """The output of layer 2 for the first text, in fp16."""
    classifier = Classifier(bundle, LayerRange(1, 2))
    kept: dict[int, Any] = {}
    classifier.classify([classifier.encoder.encode(TEXTS[0])], None, keep=kept)
    return encode(kept[0], 2, bundle.bundle_id, "fp16")


def test_cloud_answers_as_with_onnxruntime(tmp_path: Path, state: bytes) -> None:
    def served(device: ComputeDevice, folder: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        settings = CloudSettings(**settings_of(tmp_path / folder))
        return asyncio.run(answers(create_cloud(settings, [device]), state))

    ready, found = served(TORCH_CPU, "cuda")
    ready_onnx, expected = served(CPU, "onnx")
    assert ready["device"] == TORCH_CPU.title
    assert ready_onnx["device"] == "cpu"
    assert ready["bundle_id"] == ready_onnx["bundle_id"]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["exit_layer"] == theirs["exit_layer"] == 6
        assert ours["confidence"] == pytest.approx(theirs["confidence"], abs=CLOSE)
        if theirs["confidence"] > 0.5 + CLOSE:
            assert ours["label"] == theirs["label"]
        assert ours["compute_ms"] > 0
    assert found[-1]["resumed_after"] == 2
    assert found[-1]["confidence"] == pytest.approx(found[0]["confidence"], abs=CLOSE)


def test_edge_exits_at_the_same_layers(tmp_path: Path) -> None:
    def served(device: ComputeDevice, folder: str) -> Sequence[dict[str, Any]]:
        settings = EdgeSettings(**settings_of(tmp_path / folder))
        return asyncio.run(answers(create_edge(settings, [device])))[1]

    found, expected = served(TORCH_CPU, "cuda"), served(CPU, "onnx")
    same = 0
    for ours, theirs in zip(found, expected, strict=True):
        if ours["exit_layer"] == theirs["exit_layer"]:
            same += 1
            assert ours["confidence"] == pytest.approx(theirs["confidence"], abs=CLOSE)
        else:  # a tie at α
            first = min(ours, theirs, key=lambda answer: answer["exit_layer"])
            assert first["confidence"] == pytest.approx(ALPHA, abs=CLOSE)
    assert same >= len(TEXTS) - 2
    assert len({answer["exit_layer"] for answer in found}) >= 3
    assert np.mean([answer["exit_layer"] for answer in found]) < 5


def test_certificate_of_another_runtime_stops_the_start(bundle: Bundle, tmp_path: Path) -> None:
    file = written(bundle, tmp_path, edge_layers=6)
    settings = CloudSettings(**settings_of(tmp_path), certificate=file)
    with pytest.raises(BundleError, match="runtime onnx of the cloud, which runs cuda here"):
        create_cloud(settings, [TORCH_CPU])
