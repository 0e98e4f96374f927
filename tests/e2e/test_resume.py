"""Four real processes, and a mobile that sends its hidden state at every escalation."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from shared.bundle.loading import Bundle
from shared.domain import LayerRange, Side, Tier
from shared.field_types import MAX_DEADLINE_MS
from shared.inference.classifier import Classifier
from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from shared.wire import ClassifyResponse
from tests.support.running_testbed import sentences, start

COUNT = 100


@pytest.mark.parametrize("codec", ["int8", "fp16"])
def test_escalations_resume_and_the_ledger_is_consistent(
    codec: str, tmp_path: Path, bundle: Bundle
) -> None:
    texts = sentences(COUNT)
    with start(tmp_path, DIMEE_RESUME="always", DIMEE_RESUME_CODEC=codec) as testbed:
        body = {"texts": texts, "policy": "adaee", "deadline_ms": MAX_DEADLINE_MS}
        url = testbed.roles["mobile"].url
        with httpx.Client(base_url=url, trust_env=False, timeout=120) as gateway:
            response = gateway.post("/v1/classify", json=body)
        answers = [
            item.result
            for item in ClassifyResponse.model_validate_json(response.content).items
            if item.result is not None
        ]
        ledger = LedgerClient(testbed.roles["ledger"].url)
        report = wait_for_consistent(ledger, wait_s=60, requests=COUNT)
        assert report.consistent, report
        assert (len(answers), report.requests) == (COUNT, COUNT)

        escalated = [i for i, answer in enumerate(answers) if answer.escalated]
        assert len(escalated) >= 5
        whole = Classifier(bundle, LayerRange(1, bundle.manifest.layers))
        for i in escalated:
            answer = answers[i]
            here, there = answer.attempts
            assert (here.tier, there.tier, answer.exit_layer) == (Tier.MOBILE, Tier.CLOUD, 6)
            assert there.resumed_after == here.exit_layer == bundle.manifest.mobile_layers
            (expected,) = whole.classify([whole.encoder.encode(texts[i])], None)
            got = list(answer.probabilities.values())
            assert got == pytest.approx(expected.probabilities, abs=0.06)
        rows = ledger.request_entries(answers[escalated[0]].request_id)
        assert [(row.ordinal, row.side, row.resumed_after) for row in rows] == [
            (1, Side.CALLER, None),
            (1, Side.TIER, None),
            (2, Side.CALLER, 2),
            (2, Side.TIER, 2),
        ]
        assert len({row.text_hash for row in rows}) == 1
