"""From a CSV of texts in three classes to tiers that answer with its labels, by the real commands.

The encoder is the real pretrained one. Nothing depends on how right its answers are.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import dimee, dimee_up
from tests.support.topics import TOPICS, make_topics, write_topics

pytestmark = pytest.mark.long


def test_csv_is_trained_exported_and_served_with_its_labels(tmp_path: Path) -> None:
    write_topics(tmp_path / "topics.csv", 400)
    trained = dimee(
        "train", "--data", "topics.csv", "--text-field", "text", "--max-tokens", "32",
        "--out", "runs/topics",
        folder=tmp_path, status=0,
    )  # fmt: skip
    assert "trained on 256 train, 64 validation, 80 test" in trained.stdout

    exported = dimee("export", "runs/topics", "bundles/topics", folder=tmp_path, status=0)
    assert "runs the policy dimee-fixed by default" in exported.stderr
    manifest = json.loads((tmp_path / "bundles/topics/manifest.json").read_text(encoding="utf-8"))
    assert manifest["task"] == "topics"
    assert sorted(manifest["labels"]) == sorted(TOPICS)

    texts = [text for text, _ in make_topics(9, seed=99)]
    options = ("--bundle", "bundles/topics", "--state-dir", "state")
    with dimee_up(*options, folder=tmp_path) as running, running.client() as http:
        for policy in (None, "mobile", "edge", "cloud"):
            body = {"texts": texts} | ({} if policy is None else {"policy": policy})
            items = http.post("/v1/classify", json=body).json()["items"]
            results = [item["result"] for item in items]
            assert {result["label"] for result in results} <= set(TOPICS)
            assert all(set(result["probabilities"]) == set(TOPICS) for result in results)
            assert policy is None or {result["tier"] for result in results} == {policy}
        assert shutil.which("curl") is not None, "install curl"
        answer = subprocess.run(
            ["bash", "-c", running.first_call], capture_output=True, check=True, timeout=60
        )
        (item,) = json.loads(answer.stdout)["items"]
        assert item["result"]["label"] in TOPICS
        ledger = re.search(r"--ledger-url (\S+)", running.printed)
        assert ledger is not None
        done = dimee("ledger", "verify", "--ledger-url", ledger[1], folder=tmp_path, status=0)
        assert "consistent" in done.stdout
