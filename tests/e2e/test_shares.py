"""Through the four processes, sentences go where the policy sends them offline, in order."""

from __future__ import annotations

import httpx
import pytest

from mobile_client.processes import Testbed
from shared.bundle import EMBEDDINGS, TOKENIZER, Bundle
from shared.ledger.cli import wait_for_clean
from shared.ledger.client import LedgerClient
from shared.policies import make_policy
from shared.runtime.embeddings import Embeddings
from shared.runtime.encoding import TextEncoder
from tests.e2e.conftest import sentences

COUNT = 500


@pytest.mark.parametrize("policy", ["dimee-fixed", "dimee-adaptive", "random"])
def test_500_sentences(
    policy: str, testbed: Testbed, gateway: httpx.Client, bundle: Bundle
) -> None:
    texts = sentences(COUNT)
    encoder = TextEncoder(bundle.path / TOKENIZER, bundle.manifest.max_tokens)
    embeddings = Embeddings(bundle.path / EMBEDDINGS)
    offline = make_policy(policy, bundle)
    expected = [
        offline.route(embeddings.mean_word_embedding(encoder.encode(text))).tier for text in texts
    ]
    ledger = LedgerClient(testbed.roles["ledger"].url)
    before = ledger.verify().requests

    results = []
    for start in range(0, COUNT, 50):
        answer = gateway.post(
            "/v1/classify", json={"texts": texts[start : start + 50], "policy": policy}
        )
        assert answer.status_code == 200, answer.text
        results += [item["result"] for item in answer.json()["items"]]

    assert [result["tier"] for result in results] == expected
    assert len(set(expected)) >= 2, "the sentences must exercise more than one tier"
    assert {result["policy"] for result in results} == {policy}
    report = wait_for_clean(ledger, wait_s=60, requests=before + COUNT)
    assert report.clean, report
    assert report.requests - before == COUNT
    one = results[0]
    story = ledger.request(one["request_id"])
    assert {entry.side.value for entry in story} == {"caller", "tier"}
    assert {entry.label for entry in story} == {one["label"]}
