"""From a fine-tuned classifier to three tiers that answer with its labels, by the real commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import dimee, dimee_up
from tests.support.tiny_classifiers import fine_tune, logits_of, make_classifier
from tests.support.topics import TOPICS, make_topics, write_topics

pytestmark = pytest.mark.long


def test_classifier_is_trained_exported_and_served_with_its_labels(tmp_path: Path) -> None:
    """A folder of a BERT classifier and a CSV of 400 texts in three classes; the rest is dimee's.

    The whole model answers exactly like the classifier: its answers are compared with those of
    ``transformers`` for texts with a clear margin (the layers of the bundle are in 8 bits).
    """
    classifier = make_classifier("bert", tmp_path / "my-classifier", initializer_range=0.05)
    fine_tune(classifier, make_topics(300, seed=31), epochs=4, learning_rate=3e-3)
    write_topics(tmp_path / "topics.csv", 400)

    trained = dimee(
        "train", "--data", "topics.csv", "--text-field", "text",
        "--from-classifier", "my-classifier", "--freeze-backbone", "--max-tokens", "64",
        "--out", "runs/topics",
        folder=tmp_path, status=0,
    )  # fmt: skip
    accuracy = [float(line.split()[1]) for line in trained.stdout.splitlines()[-3:]]
    assert f"classifier before the training: {accuracy[-1]:.2f}" in trained.stdout

    dimee(
        "export", "runs/topics", "bundles/topics", "--mobile-layers", "1", "--edge-layers", "2",
        folder=tmp_path, status=0,
    )  # fmt: skip
    manifest = (tmp_path / "bundles" / "topics" / "manifest.json").read_text(encoding="utf-8")
    assert tuple(json.loads(manifest)["labels"]) == TOPICS
    card = (tmp_path / "bundles" / "topics" / "README.md").read_text(encoding="utf-8")
    assert "--from-classifier my-classifier --freeze-backbone" in card.replace("\n", " ")
    assert str(tmp_path) not in manifest + card

    rows = make_topics(30, seed=77)
    texts = [text for text, _ in rows]
    logits_NC = logits_of(classifier, texts)
    first_N, second_N = logits_NC.softmax(-1).topk(2).values.T
    options = ("--bundle", "bundles/topics", "--state-dir", "state")
    with dimee_up(*options, folder=tmp_path) as running, running.client() as http:
        assert "/v1/classify" in running.first_call
        by_policy = {
            policy: http.post("/v1/classify", json={"texts": texts, "policy": policy}).json()
            for policy in ("mobile", "edge", "cloud")
        }
        default = http.post("/v1/classify", json={"texts": texts}).json()
    for answers in (default, *by_policy.values()):
        assert {item["result"]["label"] for item in answers["items"]} <= set(TOPICS)
    expected = [TOPICS[index] for index in logits_NC.argmax(-1).tolist()]
    clear = [number for number, gap in enumerate((first_N - second_N).tolist()) if gap > 0.2]
    assert clear
    cloud = [item["result"]["label"] for item in by_policy["cloud"]["items"]]
    assert [cloud[number] for number in clear] == [expected[number] for number in clear]
    for tier, answers in by_policy.items():
        assert {item["result"]["tier"] for item in answers["items"]} == {tier}
