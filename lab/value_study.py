"""What the policy ``value`` reaches: frontier over Λ, Λ chosen on validation, duels by γ.

Nothing here is tuned on what is reported: every Λ comes from the validation part, cross-fitted.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from lab.heads import features_of, fit_heads
from lab.methods import Judged, Scorer, traces
from lab.metrics import auroc, interval, resamples
from lab.price import CrossFitted, all_cloud_accuracy, at_alpha, value_trace
from lab.rivals import pools_of
from lab.simulate import Trace
from lab.studies import priced
from shared.cost import CLOUD_FEES, CostModel
from shared.domain import Expectation, Outcome, Tier
from shared.heads import TIERS, Floats, SuccessHeads
from shared.policies.value import Value

DROPS = (0.0, 0.3, 0.5)
CURVE = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Drops in points that the validation part may show; each chooses its setting there."""
RIVALS = ("dimee-fixed", "dimee-adaptive", "adaee", "i-splitee")


def value_study(judged: Judged, scorer: Scorer, exit0: tuple[Floats, Floats]) -> dict[str, Any]:
    """All of it for one result."""
    fitted = CrossFitted(exit0, judged.validation, judged.pools)
    known = _Heads(exit0, judged)
    reference = all_cloud_accuracy(judged.validation)
    chosen, frontier = {}, {}
    for drop in DROPS:
        setting = fitted.choose(reference - drop / 100)
        trace = value_trace(known.at(setting.alpha), setting.price, judged.test, judged.pools)
        chosen[str(drop)] = asdict(setting) | scorer.row([trace])
    for drop in CURVE:
        setting = fitted.choose(reference - drop / 100)
        trace = value_trace(known.at(setting.alpha), setting.price, judged.test, judged.pools)
        frontier[str(drop)] = asdict(setting) | scorer.brief([trace])
    return {
        "chosen": chosen,
        "frontier": frontier,
        "auroc": _auroc(judged, known.at(judged.pools.alpha), exit0),
        "duels": _duels(judged, fitted, known),
        "ablation": _ablation(judged, scorer, fitted, known),
    }


class HeadsAlone(Value):
    """Routes by the success heads; no answer is given a second thought."""

    def second_plan(self, expectation: Expectation, outcome: Outcome) -> Tier | None:
        return None

    def _worth(self, tier: int, expectation: Expectation) -> float:
        if tier == len(TIERS) - 1:
            return super()._worth(tier, expectation)
        sure = expectation.expected[len(TIERS) + tier]
        layers = self.heads.layers_T2[tier]
        mean_layer = sure * float(layers[0]) + (1 - sure) * float(layers[1])
        cost = self.conditions.cost(TIERS[tier], mean_layer)
        return min(0.0, expectation.lead[tier]) - self.price * cost


class EscalationAlone(Value):
    """Starts every text at the edge, and escalates what is worth it; at Λ = 0, all to the cloud."""

    def _worth(self, tier: int, expectation: Expectation) -> float:
        start = Tier.EDGE if self.price else Tier.CLOUD
        return 0.0 if TIERS[tier] is start else -1.0


ABLATION: dict[str, type[Value]] = {
    "heads alone": HeadsAlone,
    "escalation alone": EscalationAlone,
    "both": Value,
}


def _ablation(judged: Judged, scorer: Scorer, fitted: CrossFitted, known: _Heads) -> dict[str, Any]:
    """What heads and escalation bring by themselves, each at settings of its own choice."""
    reference = all_cloud_accuracy(judged.validation)
    table: dict[str, Any] = {}
    for drop in DROPS[:2]:
        row = {}
        for name, kind in ABLATION.items():
            setting = fitted.choose(reference - drop / 100, kind=kind)
            heads = known.at(setting.alpha)
            trace = value_trace(heads, setting.price, judged.test, judged.pools, kind)
            row[name] = asdict(setting) | scorer.brief([trace])
        table[str(drop)] = row
    return table


class _Heads:
    """Heads fitted on all of validation, once for each α."""

    def __init__(self, exit0: tuple[Floats, Floats], judged: Judged) -> None:
        self._exit0, self._judged = exit0, judged
        self._made: dict[float, SuccessHeads] = {}

    def at(self, alpha: float) -> SuccessHeads:
        if alpha not in self._made:
            pools = at_alpha(self._judged.pools, alpha)
            self._made[alpha] = fit_heads(self._exit0, self._judged.validation, pools)
        return self._made[alpha]


def _auroc(judged: Judged, heads: SuccessHeads, exit0: tuple[Floats, Floats]) -> dict[str, Any]:
    features_NF, _ = features_of(exit0, judged.test)
    expected_NK = np.stack([heads.expect(row_F) for row_F in features_NF])
    exits_N = pools_of(judged.test, judged.pools) == 0
    return {
        "phone_exits": auroc(exits_N, expected_NK[:, 3]),
        "share_exiting": round(float(exits_N.mean()), 4),
    }


def _duels(judged: Judged, fitted: CrossFitted, known: _Heads) -> dict[str, Any]:
    """Against each rival at each γ: Λ so that ``value`` is at least as accurate on validation,
    then both on the reported samples. The rival has its α and pools made anew for that γ."""
    layers = judged.facts.cost_model.layers
    weight_BN = resamples(len(judged.test))
    total_B = weight_BN.sum(1)
    result: dict[str, Any] = {}
    for gamma in CLOUD_FEES[1:]:
        other = priced(judged, CostModel.paper(layers, cloud_fee=gamma))
        own = replace(judged.pools, cost_model=other.pools.cost_model)
        learnt = replace(other, test=judged.validation)
        row = {}
        for name in RIVALS:
            learned = traces(name, learnt, seeds=1)[0]
            accuracy = float(np.mean(learned.answer_N == judged.validation.labels_N))
            setting = fitted.choose(accuracy, own.cost_model)
            mine = value_trace(known.at(setting.alpha), setting.price, judged.test, own)
            theirs = traces(name, other, seeds=1)[0]
            row[name] = asdict(setting) | _duel(judged, mine, theirs, weight_BN, total_B)
        result[str(gamma)] = row
    return result


def _duel(
    judged: Judged, mine: Trace, theirs: Trace, weight_BN: Floats, total_B: Floats
) -> dict[str, Any]:
    labels_N = judged.test.labels_N
    right_N = (mine.answer_N == labels_N) * 100.0 - (theirs.answer_N == labels_N) * 100.0
    cost_N = mine.cost_N - theirs.cost_N
    return {
        "accuracy_difference": round(float(right_N.mean()), 4),
        "accuracy_interval": interval(weight_BN @ right_N / total_B),
        "cost_difference": round(float(cost_N.mean()), 4),
        "cost_interval": interval(weight_BN @ cost_N / total_B),
        "cost": round(float(mine.cost_N.mean()), 4),
        "rival_cost": round(float(theirs.cost_N.mean()), 4),
    }
