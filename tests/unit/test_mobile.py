"""How the mobile runs policies: whole models, what learns, and what must not be learned."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from mobile_client import MobileClient
from mobile_client.cli.render import row
from mobile_client.service import MobileService
from shared.bundle.loading import Bundle
from shared.domain import LayerRange, Outcome, RoutingDecision, Tier
from shared.errors import InvalidInput, TierUnreachable
from shared.inference.classifier import Classifier
from shared.policies import PolicyFacts, TextFeatures, make_policy
from shared.policies.bandits import AdaEE, ISplitEE
from shared.policies.base import EscalateBelowThreshold
from shared.policies.centroids import DimeeAdaptive
from shared.pricing.cost_model import CostModel
from shared.wire import Classification
from testbed.demo import sample_sentences
from tests.support.mobile import World, answered, story

COSTS = CostModel.paper(6)
ANY = TextFeatures(np.zeros(2, np.float32), tokens=5)


def test_bert_and_early_exit_run_all_layers_which_are_loaded_for_them(
    bundle: Bundle, tmp_path: Path
) -> None:
    texts = sample_sentences()[:30]
    whole = Classifier(bundle, LayerRange(1, 6), threads=2)
    rows = [whole.encoder.encode(text) for text in texts]
    expected = {
        "bert": [whole.classify([row], None)[0] for row in rows],
        "early-exit": [whole.classify([row], bundle.manifest.alpha)[0] for row in rows],
    }
    held = []

    async def work(mobile: MobileService) -> dict[str, list[Classification]]:
        answers = {}
        for name in ("mobile", "bert", "early-exit"):
            answers[name] = [answered(one) for one in await mobile.classify(texts, policy=name)]
            held.append(mobile.runtime.layers_held)
        return answers

    answers = World(tmp_path).run(work)
    assert held == [2, 6, 6]
    for name, predictions in expected.items():
        for answer, prediction in zip(answers[name], predictions, strict=True):
            assert story(answer) == [("mobile", "route", "answered")]
            assert answer.exit_layer == prediction.exit_layer
            assert tuple(answer.probabilities.values()) == prediction.probabilities
            assert answer.cost.cost_lambda == COSTS.mobile_layer * prediction.exit_layer
    assert {one.exit_layer for one in answers["bert"]} == {6}
    assert len({one.exit_layer for one in answers["early-exit"]}) >= 3
    assert max(one.exit_layer for one in answers["mobile"]) == 2


@pytest.mark.parametrize(("policy", "held"), [("bert", 6), ("i-splitee", 6), ("adaee", 2)])
def test_a_default_policy_has_its_layers_at_start(policy: str, held: int, tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> int:
        return mobile.runtime.layers_held

    assert World(tmp_path, settings={"policy": policy}).run(work) == held


def test_an_unknown_default_policy_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="choose one of"):
        MobileClient(policy="best", state_dir=tmp_path)


def outcome(answer: Classification) -> Outcome:
    return Outcome(answer.tier, answer.exit_layer, answer.confidence, answer.cost.cost_lambda)


@pytest.mark.parametrize("name", ["adaee", "i-splitee"])
def test_a_bandit_learns_each_answer_before_the_next_decision(
    name: str, bundle: Bundle, tmp_path: Path
) -> None:
    """A bandit beside it that is told everything in order makes the same choices."""
    texts = sample_sentences()

    async def work(mobile: MobileService) -> tuple[list[Classification], AdaEE | ISplitEE]:
        answers = [answered(one) for one in await mobile.classify(texts, policy=name)]
        policy = mobile.runtime.make_policy(name)
        assert isinstance(policy, AdaEE | ISplitEE)
        return answers, policy

    answers, learned = World(tmp_path, up=("cloud",)).run(work)
    beside = make_policy(name, PolicyFacts.of(bundle))
    assert isinstance(beside, AdaEE | ISplitEE)
    for answer in answers:
        decision = beside.route(ANY)
        if decision.last_layer is not None:
            assert answer.attempts[0].exit_layer == decision.last_layer
        alpha = bundle.manifest.alpha if decision.alpha is None else decision.alpha
        assert answer.escalated == (answer.tier is Tier.CLOUD)
        assert answer.escalated or answer.confidence >= alpha or decision.escalate_to is None
        beside.learn(decision, outcome(answer))
    assert learned.bandit.plays == beside.bandit.plays
    assert learned.bandit.means == beside.bandit.means
    assert sum(learned.bandit.plays) == len(texts)
    assert {answer.tier for answer in answers} == {Tier.MOBILE, Tier.CLOUD}


def test_calls_at_once_take_turns_with_a_bandit(tmp_path: Path) -> None:
    """RoutedText together, they would all play the first arm."""

    async def work(mobile: MobileService) -> list[int]:
        texts = sample_sentences()[:3]
        calls = [mobile.classify(texts, policy="i-splitee") for _ in range(2)]
        answers = [answered(one) for call in await asyncio.gather(*calls) for one in call]
        return [one.attempts[0].exit_layer or 0 for one in answers]

    assert sorted(World(tmp_path, up=("cloud",)).run(work)) == [1, 2, 3, 4, 5, 6]


class Pupil(EscalateBelowThreshold):
    """Sends all to one tier and keeps what it is told."""

    name = "pupil"
    policy_layers = None
    learns = True

    def __init__(self, tier: Tier) -> None:
        self.decision = RoutingDecision(tier, self.name)
        self.told: list[tuple[RoutingDecision, Outcome]] = []

    def route(self, features: TextFeatures) -> RoutingDecision:
        return self.decision

    def learn(self, decision: RoutingDecision, outcome: Outcome) -> None:
        self.told.append((decision, outcome))


def test_a_request_without_an_answer_teaches_nothing(tmp_path: Path) -> None:
    pupil = Pupil(Tier.CLOUD)

    async def work(mobile: MobileService) -> list[object]:
        mobile.runtime._policies["pupil"] = pupil
        return list(await mobile.classify(["a wonderful film", "dull"], policy="pupil"))

    world = World(tmp_path, settings={"fail_over": (Tier.EDGE,), "retries": 0})
    outcomes = world.run(work)
    assert [type(one) for one in outcomes] == [TierUnreachable] * 2
    assert pupil.told == []


def test_what_is_learned_is_the_request_not_its_last_attempt(tmp_path: Path) -> None:
    pupil = Pupil(Tier.CLOUD)

    async def work(mobile: MobileService) -> Classification:
        mobile.runtime._policies["pupil"] = pupil
        return answered((await mobile.classify(["a wonderful film"], policy="pupil"))[0])

    answer = World(tmp_path, up=("edge",)).run(work)
    assert answer.failed_over
    assert pupil.told == [(pupil.decision, outcome(answer))]
    assert pupil.told[0][1].tier is Tier.EDGE


def test_a_refused_call_moves_no_centroid(tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> tuple[list[int], list[int]]:
        policy = mobile.runtime.make_policy("dimee-adaptive")
        assert isinstance(policy, DimeeAdaptive)
        before = policy.counts_D.tolist()
        with pytest.raises(InvalidInput, match=r"^texts\[1\]"):
            await mobile.classify(["a wonderful film", "\u200b"], policy="dimee-adaptive")
        return before, policy.counts_D.tolist()

    before, after = World(tmp_path).run(work)
    assert before == after


@pytest.mark.parametrize("deadline_ms", [0, -1, 60_001, float("nan")])
def test_a_deadline_out_of_bounds_opens_no_request(deadline_ms: float, tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> None:
        with pytest.raises(InvalidInput, match=r"^deadline_ms"):
            await mobile.classify(["fine"], policy="cloud", deadline_ms=deadline_ms)

    world = World(tmp_path)
    world.run(work)
    assert world.entries() == []


def test_rows_mark_what_was_escalated_and_what_failed_over(tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> Classification:
        return answered((await mobile.classify(["a wonderful film"], policy="mobile"))[0])

    answer = World(tmp_path).run(work)
    for escalated, failed_over, mark in ((0, 0, " "), (1, 0, "^ "), (0, 1, "* "), (1, 1, "^*")):
        marked = answer.model_copy(
            update={"escalated": bool(escalated), "failed_over": bool(failed_over)}
        )
        assert f"mobile{mark}" in row("a wonderful film", marked)
        assert len(row("a wonderful film", marked)) == len(row("a wonderful film", answer))
