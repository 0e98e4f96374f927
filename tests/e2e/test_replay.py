"""Live and offline decisions are equal for every policy, text by text."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from lab.data.examples import Example
from lab.evaluate.samples import Samples, samples_of_bundle
from lab.evaluate.simulate import simulate
from shared.bundle.loading import Bundle
from shared.field_types import MAX_DEADLINE_MS
from shared.ledger.cli import wait_for_consistent
from shared.ledger.client import LedgerClient
from shared.policies import POLICY_NAMES, PolicyFacts, make_policy
from shared.wire import Classification, ClassifyResponse
from testbed.processes.processes import Testbed
from tests.support.example_policy import EXAMPLES, NAME, PATH, installed_path
from tests.support.running_testbed import sentences, start

COUNT = 1_000
BATCH = 100


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    """A testbed as in the conftest, on whose Python path a package has registered a policy."""
    running = start(
        tmp_path_factory.mktemp("testbed"),
        DIMEE_MAX_QUEUE_MS="600000",
        DIMEE_LATENCY_PRICE_LAMBDA="0",
        PYTHONPATH=installed_path(tmp_path_factory.mktemp("installed")),
    )
    with running:
        yield running


@pytest.fixture(scope="module")
def samples(bundle: Bundle) -> Samples:
    """Exit outputs of the texts from the bundle's files; the labels are not used."""
    examples = [Example(text, None, 0) for text in sentences(COUNT)]
    return samples_of_bundle(bundle, examples)


def live(gateway: httpx.Client, policy: str) -> list[Classification]:
    """Classify the texts in order through the gateway, with the longest deadline."""
    texts = sentences(COUNT)
    answers: list[Classification] = []
    for first in range(0, COUNT, BATCH):
        body = {
            "texts": texts[first : first + BATCH],
            "policy": policy,
            "deadline_ms": MAX_DEADLINE_MS,
        }
        response = gateway.post("/v1/classify", json=body)
        assert response.status_code == httpx.codes.OK, response.text
        items = ClassifyResponse.model_validate_json(response.content).items
        assert [item.error for item in items if item.result is None] == []
        answers += [item.result for item in items if item.result is not None]
    return answers


@pytest.mark.parametrize("policy", [*POLICY_NAMES, NAME])
def test_live_and_offline_decisions_are_equal(
    policy: str,
    testbed: Testbed,
    gateway: httpx.Client,
    bundle: Bundle,
    samples: Samples,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(EXAMPLES)])
    facts = PolicyFacts.of(bundle)
    made = make_policy(PATH if policy == NAME else policy, facts)
    trace = simulate(made, samples, facts, bundle.manifest.edge_layers)
    ledger = LedgerClient(testbed.roles["ledger"].url)
    requests, before = ledger.verify().requests, ledger.summary()

    answers = live(gateway, policy)

    assert not any(answer.failed_over for answer in answers)
    got = [(one.tier, one.exit_layer, one.cost.cost_lambda) for one in answers]
    expected = list(zip(trace.tier_N, trace.exit_N.tolist(), trace.cost_N.tolist(), strict=True))
    differing = [i for i in range(COUNT) if got[i] != expected[i]]
    assert differing == [], [(i, got[i], expected[i]) for i in differing[:5]]
    assert {answer.policy for answer in answers} == {policy}

    report = wait_for_consistent(ledger, wait_s=60, requests=requests + COUNT)
    assert report.consistent, report
    assert report.requests - requests == COUNT
    after = ledger.summary()
    recorded = Counter(after.answered_by_tier) - Counter(before.answered_by_tier)
    assert recorded == Counter(answer.tier.value for answer in answers)
    assert after.escalated - before.escalated == sum(answer.escalated for answer in answers)
    assert after.cost_lambda - before.cost_lambda == pytest.approx(trace.cost_N.sum())
    for one in (answers[0], *[answer for answer in answers if answer.escalated][:1]):
        entries = ledger.request_entries(one.request_id)
        sides = [(entry.ordinal, entry.side.value) for entry in entries]
        attempts = range(1, len(one.attempts) + 1)
        assert sides == [(number, side) for number in attempts for side in ("caller", "tier")]
        assert {entry.label for entry in entries if entry.ordinal == attempts[-1]} == {one.label}


def test_texts_reach_several_tiers_and_exits(bundle: Bundle, samples: Samples) -> None:
    """The comparison needs texts that end at several tiers and exits."""
    facts = PolicyFacts.of(bundle)
    for policy in ("dimee-fixed", "dimee-adaptive", "random", "adaee", "i-splitee", "early-exit"):
        trace = simulate(make_policy(policy, facts), samples, facts, bundle.manifest.edge_layers)
        places = set(zip(trace.tier_N, trace.exit_N.tolist(), strict=True))
        assert len(places) >= 3, policy
