"""Examples of the gateway: from the bundle's samples, in OpenAPI and as a shell command."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from mobile_client import MobileClient
from mobile_client.gateway.app import create_app
from mobile_client.gateway.examples import (
    MAX_CHARS,
    curl_command,
    example_texts,
    request_examples,
)
from mobile_client.settings import MobileSettings
from shared.bundle.loading import Bundle
from shared.domain import InputText
from shared.wire import BundleDescription, ClassifyRequest
from tests.support.bundles import bundle_with_samples
from tests.support.descriptions import PAIRS, SINGLE, with_samples
from tests.support.paths import BUNDLE, free_ports

AWKWARD = [
    'it\'s "fine"',
    "$HOME `id` $(id) !! \\ \\n",
    "été 雨 🙂",
    "two\nlines\tand\x1b[31m red \x7f \u202e",
    "@file",
    "-d x; ls",
]


@pytest.mark.parametrize("text", AWKWARD)
def test_command_sends_the_text_unchanged_through_a_shell(text: str) -> None:
    sample = InputText(text, f"{text} too", "yes")
    command = curl_command("http://127.0.0.1:1", with_samples(PAIRS, sample))
    assert command.isprintable(), "a terminal shows the whole command in one line"
    found = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True
    )
    arguments = found.stdout.decode().split("\0")[:-1]
    assert arguments == shlex.split(command)
    assert json.loads(arguments[-1]) == {"texts": [text], "pairs": [f"{text} too"]}


def test_command_sends_the_token_of_the_environment() -> None:
    assert "DIMEE_TOKEN" not in curl_command("http://127.0.0.1:1", SINGLE)
    command = curl_command("http://127.0.0.1:1", SINGLE, with_token=True)
    assert '-H "authorization: Bearer $DIMEE_TOKEN"' in command


def test_examples_are_short_texts_of_different_labels() -> None:
    samples = [
        InputText("x" * (MAX_CHARS + 1), None, "good"),
        InputText("a", None, "good"),
        InputText("b", None, "good"),
        InputText("c", None, "bad"),
    ]
    found = [text.text for text in example_texts(with_samples(SINGLE, *samples), 3)]
    assert found == ["a", "c", "b"]
    long = with_samples(SINGLE, InputText("x" * 900), InputText("y" * 500))
    assert example_texts(long) == [InputText("y" * 500)]


@pytest.mark.parametrize("description", [SINGLE, PAIRS])
def test_examples_without_samples_suit_the_task(description: BundleDescription) -> None:
    for example in request_examples(description).values():
        request = ClassifyRequest.model_validate(example["value"])
        assert (request.pairs is not None) == description.pairs


def test_gateway_describes_its_bundle_and_its_examples_are_answered(tmp_path: Path) -> None:
    samples = [InputText("l'été est fini", None, "positive"), InputText("dull", None, "negative")]
    folder = bundle_with_samples(tmp_path / "bundle", samples)
    ledger, edge, cloud = (f"http://127.0.0.1:{port}" for port in free_ports(3))
    settings = MobileSettings(
        bundle=folder, state_dir=tmp_path, ledger_url=ledger, edge_url=edge, cloud_url=cloud
    )
    with TestClient(create_app(settings)) as http:
        description = BundleDescription.model_validate_json(http.get("/v1/bundle").content)
        assert (description.task, description.labels) == ("sst2", ["negative", "positive"])
        assert description.samples == samples
        content = http.get("/openapi.json").json()["paths"]["/v1/classify"]["post"]["requestBody"]
        examples = content["content"]["application/json"]["examples"]
        assert examples["one"]["value"] == {"texts": ["l'été est fini"]}
        assert examples["several"]["value"] == {"texts": ["l'été est fini", "dull"]}
        for example in examples.values():
            answer = http.post("/v1/classify", json=example["value"])
            assert answer.status_code == 200, answer.text


def test_client_describes_its_bundle(bundle: Bundle, tmp_path: Path) -> None:
    with MobileClient(bundle=BUNDLE, state_dir=tmp_path) as mobile:
        assert mobile.bundle.labels == list(bundle.manifest.labels)
        assert mobile.bundle.bundle_id == bundle.bundle_id
        assert mobile.bundle.samples == []
