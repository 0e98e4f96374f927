"""Policies on the mobile load their layers and learn only from the answers that count."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from mobile_client import MobileClient
from mobile_client.cli.render import row
from mobile_client.options import RequestOptions
from mobile_client.service import MobileService
from shared.bundle.loading import Bundle
from shared.domain import LayerRange, Outcome, RoutingDecision, Tier, margin_of
from shared.errors import InvalidInput, TierUnreachable
from shared.inference.classifier import Classifier
from shared.policies import PolicyFacts, TextFeatures, make_policy
from shared.policies.bandits import AdaEE, ISplitEE
from shared.policies.base import EscalateBelowThreshold
from shared.policies.centroids import DimeeAdaptive
from shared.pricing.cost_model import CostModel
from shared.wire import Classification
from testbed.texts import sample_sentences
from tests.support.mobile import World, answered, attempts_of

COSTS = CostModel.paper(6)
ANY = TextFeatures(np.zeros(2, np.float32), tokens=5)


def test_bert_and_early_exit_load_and_run_all_layers(bundle: Bundle, tmp_path: Path) -> None:
    texts = sample_sentences()[:30]
    whole = Classifier(bundle, LayerRange(1, 6), threads=2)
    rows = [whole.encoder.encode(text) for text in texts]
    expected = {
        "bert": [whole.classify([row], None)[0] for row in rows],
        "early-exit": [whole.classify([row], bundle.manifest.alpha)[0] for row in rows],
    }
    loaded = []

    async def work(mobile: MobileService) -> dict[str, list[Classification]]:
        answers = {}
        for name in ("mobile", "bert", "early-exit"):
            answers[name] = [
                answered(one) for one in await mobile.classify(texts, options=RequestOptions(name))
            ]
            loaded.append(mobile.runtime.loaded_layers)
        return answers

    answers = World(tmp_path).run(work)
    assert loaded == [2, 6, 6]
    for name, predictions in expected.items():
        for answer, prediction in zip(answers[name], predictions, strict=True):
            assert attempts_of(answer) == [("mobile", "route", "answered")]
            assert answer.exit_layer == prediction.exit_layer
            assert tuple(answer.probabilities.values()) == prediction.probabilities
            assert answer.cost.cost_lambda == COSTS.mobile_layer * prediction.exit_layer
    assert {one.exit_layer for one in answers["bert"]} == {6}
    assert len({one.exit_layer for one in answers["early-exit"]}) >= 3
    assert max(one.exit_layer for one in answers["mobile"]) == 2


@pytest.mark.parametrize(("policy", "loaded"), [("bert", 6), ("i-splitee", 6), ("adaee", 2)])
def test_layers_of_the_default_policy_are_loaded_at_start(
    policy: str, loaded: int, tmp_path: Path
) -> None:
    async def work(mobile: MobileService) -> int:
        return mobile.runtime.loaded_layers

    assert World(tmp_path, settings={"policy": policy}).run(work) == loaded


def test_unknown_default_policy_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="choose one of"):
        MobileClient(policy="best", state_dir=tmp_path)


def outcome(answer: Classification) -> Outcome:
    return Outcome(
        answer.tier,
        answer.exit_layer,
        answer.confidence,
        answer.cost.cost_lambda,
        label=list(answer.probabilities).index(answer.label),
        margin=margin_of(list(answer.probabilities.values())),
    )


@pytest.mark.parametrize("name", ["adaee", "i-splitee"])
def test_bandit_learns_each_answer_before_the_next_decision(
    name: str, bundle: Bundle, tmp_path: Path
) -> None:
    """A second bandit that learns the same outcomes in order makes the same choices."""
    texts = sample_sentences()

    async def work(mobile: MobileService) -> tuple[list[Classification], AdaEE | ISplitEE]:
        answers = [
            answered(one) for one in await mobile.classify(texts, options=RequestOptions(name))
        ]
        policy = mobile.runtime.make_policy(name)
        assert isinstance(policy, AdaEE | ISplitEE)
        return answers, policy

    answers, learned = World(tmp_path, up=("cloud",)).run(work)
    reference = make_policy(name, PolicyFacts.of(bundle))
    assert isinstance(reference, AdaEE | ISplitEE)
    for answer in answers:
        decision = reference.route(ANY)
        if decision.last_layer is not None:
            assert answer.attempts[0].exit_layer == decision.last_layer
        alpha = bundle.manifest.alpha if decision.alpha is None else decision.alpha
        assert answer.escalated == (answer.tier is Tier.CLOUD)
        assert answer.escalated or answer.confidence >= alpha or decision.escalate_to is None
        reference.learn(decision, outcome(answer))
    assert learned.bandit.plays == reference.bandit.plays
    assert learned.bandit.means == reference.bandit.means
    assert sum(learned.bandit.plays) == len(texts)
    assert {answer.tier for answer in answers} == {Tier.MOBILE, Tier.CLOUD}


def test_concurrent_calls_take_turns_with_a_bandit(tmp_path: Path) -> None:
    """Texts routed together would all play the first arm."""

    async def work(mobile: MobileService) -> list[int]:
        texts = sample_sentences()[:3]
        calls = [mobile.classify(texts, options=RequestOptions("i-splitee")) for _ in range(2)]
        answers = [answered(one) for call in await asyncio.gather(*calls) for one in call]
        return [one.attempts[0].exit_layer or 0 for one in answers]

    assert sorted(World(tmp_path, up=("cloud",)).run(work)) == [1, 2, 3, 4, 5, 6]


class RecordingPolicy(EscalateBelowThreshold):
    """Policy that sends every text to one tier and records the outcomes passed to `learn`."""

    name = "recording"
    policy_layers = None
    learns = True

    def __init__(self, tier: Tier) -> None:
        self.decision = RoutingDecision(tier, self.name)
        self.learned: list[tuple[RoutingDecision, Outcome]] = []

    def route(self, features: TextFeatures) -> RoutingDecision:
        return self.decision

    def learn(self, decision: RoutingDecision, outcome: Outcome) -> None:
        self.learned.append((decision, outcome))


def test_policy_learns_nothing_from_a_failed_request(tmp_path: Path) -> None:
    recording = RecordingPolicy(Tier.CLOUD)

    async def work(mobile: MobileService) -> list[object]:
        mobile.runtime._policies["recording"] = recording
        return list(
            await mobile.classify(["a wonderful film", "dull"], options=RequestOptions("recording"))
        )

    world = World(tmp_path, settings={"fail_over": (Tier.EDGE,), "retries": 0})
    outcomes = world.run(work)
    assert [type(one) for one in outcomes] == [TierUnreachable] * 2
    assert recording.learned == []


def test_policy_learns_the_outcome_of_the_whole_request(tmp_path: Path) -> None:
    recording = RecordingPolicy(Tier.CLOUD)

    async def work(mobile: MobileService) -> Classification:
        mobile.runtime._policies["recording"] = recording
        return answered(
            (await mobile.classify(["a wonderful film"], options=RequestOptions("recording")))[0]
        )

    answer = World(tmp_path, up=("edge",)).run(work)
    assert answer.failed_over
    assert recording.learned == [(recording.decision, outcome(answer))]
    assert recording.learned[0][1].tier is Tier.EDGE


def test_refused_call_moves_no_centroid(tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> tuple[list[int], list[int]]:
        policy = mobile.runtime.make_policy("dimee-adaptive")
        assert isinstance(policy, DimeeAdaptive)
        before = policy.counts_D.tolist()
        with pytest.raises(InvalidInput, match=r"^texts\.1: "):
            await mobile.classify(
                ["a wonderful film", "\u200b"], options=RequestOptions("dimee-adaptive")
            )
        return before, policy.counts_D.tolist()

    before, after = World(tmp_path).run(work)
    assert before == after


@pytest.mark.parametrize("deadline_ms", [0, -1, 60_001, float("nan")])
def test_deadline_out_of_bounds_opens_no_request(deadline_ms: float, tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> None:
        with pytest.raises(InvalidInput, match=r"^deadline_ms"):
            await mobile.classify(["fine"], options=RequestOptions("cloud", deadline_ms))

    world = World(tmp_path)
    world.run(work)
    assert world.entries() == []


def test_rows_mark_escalated_and_failed_over_answers(tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> Classification:
        return answered(
            (await mobile.classify(["a wonderful film"], options=RequestOptions("mobile")))[0]
        )

    answer = World(tmp_path).run(work)
    for escalated, failed_over, mark in ((0, 0, " "), (1, 0, "^ "), (0, 1, "* "), (1, 1, "^*")):
        marked = answer.model_copy(
            update={"escalated": bool(escalated), "failed_over": bool(failed_over)}
        )
        assert f"mobile{mark}" in row("a wonderful film", marked)
        assert len(row("a wonderful film", marked)) == len(row("a wonderful film", answer))
