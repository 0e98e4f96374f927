"""Bundles of other families than BERT on four real processes: pairs, three tiers, resumption."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import torch

from lab.evaluate.pools import with_alpha
from lab.export.bundle import pools_of_run
from lab.export.layers import write_bundle
from lab.models.model import MultiExitClassifier
from lab.models.run import Run
from shared.bundle.loading import load_bundle
from shared.domain import LayerRange, Tier
from shared.field_types import MAX_DEADLINE_MS
from shared.inference.classifier import Classifier
from shared.wire import ClassifyResponse
from testbed.processes.processes import Testbed
from tests.support.running_testbed import start
from tests.support.tiny_data import make_pair_rows, write_rows
from tests.support.tiny_encoders import randomise, write_encoder
from tests.support.tiny_runs import write_fixed_run

LAYERS = {"mobile": 1, "edge": 2, "cloud": 3}
PAIRS = [
    ("a warm day", "the night was cold"),
    ("the film [SEP] was </s> dull", "<s> a very grim book [MASK]"),
    ("the book " * 40, "a lovely night " * 40),
]


def classify(testbed: Testbed, policy: str) -> ClassifyResponse:
    """Send the pairs to the gateway."""
    url = testbed.roles["mobile"].url
    texts, pairs = zip(*PAIRS, strict=True)
    body = {"texts": texts, "pairs": pairs, "policy": policy, "deadline_ms": MAX_DEADLINE_MS}
    with httpx.Client(base_url=url, trust_env=False, timeout=120) as gateway:
        response = gateway.post("/v1/classify", json=body)
    assert response.status_code == 200, response.text
    return ClassifyResponse.model_validate_json(response.content)


def unsure(model: MultiExitClassifier, seed: int) -> MultiExitClassifier:
    """Give the model random weights, and exits whose confidence is low."""
    randomise(model, seed)
    with torch.no_grad():
        for head in model.exit_heads:
            for parameter in head.parameters():
                parameter *= 0.05
    return model


@pytest.mark.parametrize("kind", ["electra", "mpnet", "xlm-roberta"])
def test_pairs_are_answered_on_three_tiers_and_resumed(kind: str, tmp_path: Path) -> None:
    """ELECTRA's embeddings are narrower than its layers; XLM-R's tokenizer is a Unigram model."""
    encoder = write_encoder(kind, tmp_path / "encoder")
    data = write_rows(tmp_path / "data" / "train.jsonl", make_pair_rows(200, 3)).parent
    run = Run(write_fixed_run(tmp_path / "run", data, encoder, "mrpc", fix=unsure))
    pools = with_alpha(pools_of_run(run, None, 1, 2, 0.1, None, 64), 0.99999)
    write_bundle(run, pools, tmp_path / "bundle", 64, {})
    bundle = load_bundle(tmp_path / "bundle")
    whole = Classifier(bundle, LayerRange(1, 3))
    rows = [whole.encoder.encode(*pair) for pair in PAIRS]
    settings = {"DIMEE_BUNDLE": str(tmp_path / "bundle"), "DIMEE_POLICY": "dimee-fixed"}
    with start(tmp_path / "state", DIMEE_RESUME="always", **settings) as testbed:
        for tier, layers in LAYERS.items():
            for item, row in zip(classify(testbed, tier).items, rows, strict=True):
                answer = item.result
                assert answer is not None, item
                (expected,) = whole.classify([row], None, last=layers)
                assert (answer.tier, answer.exit_layer) == (tier, layers)
                assert list(answer.probabilities.values()) == pytest.approx(
                    expected.probabilities, abs=0.005
                )
        routed = classify(testbed, "dimee-fixed").items
        assert all(item.result is not None for item in routed)
        answers = [item.result for _ in range(5) for item in classify(testbed, "adaee").items]
        last = [answer.attempts[-1] for answer in answers if answer is not None]
        assert len(last) == len(answers)
        resumed = [attempt.resumed_after for attempt in last if attempt.tier == Tier.CLOUD]
        assert resumed
        assert set(resumed) == {LAYERS["mobile"]}
