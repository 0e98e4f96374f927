"""What the policy ``value`` reaches: frontier over Λ, Λ chosen on validation, duels by γ.

Nothing here is tuned on what is reported: every Λ comes from the validation part, cross-fitted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from lab.heads import features_of, fit_heads
from lab.methods import Judged, Scorer, traces
from lab.metrics import auroc, interval, resamples
from lab.price import PRICES, CrossFitted, all_cloud_accuracy, value_trace
from lab.rivals import pools_of
from lab.simulate import Trace
from lab.studies import priced
from shared.cost import CostModel
from shared.heads import Floats, SuccessHeads

DROPS = (0.0, 0.3, 0.5)
GAMMAS = (3.0, 5.0, 11.0, 20.0, 30.0)
RIVALS = ("dimee-fixed", "dimee-adaptive", "adaee", "i-splitee")


def value_study(judged: Judged, scorer: Scorer, exit0: tuple[Floats, Floats]) -> dict[str, Any]:
    """All of it for one result."""
    fitted = CrossFitted(exit0, judged.validation, judged.pools)
    heads = fit_heads(exit0, judged.validation, judged.pools)
    reference = all_cloud_accuracy(judged.validation)
    chosen = {}
    for drop in DROPS:
        price = fitted.choose(reference - drop / 100)
        trace = value_trace(heads, price, judged.test, judged.pools)
        chosen[str(drop)] = {"price": price} | scorer.row([trace])
    return {
        "chosen": chosen,
        "frontier": {
            str(price): scorer.brief([value_trace(heads, price, judged.test, judged.pools)])
            for price in PRICES
        },
        "auroc": _auroc(judged, heads, exit0),
        "duels": _duels(judged, fitted, heads),
    }


def _auroc(judged: Judged, heads: SuccessHeads, exit0: tuple[Floats, Floats]) -> dict[str, Any]:
    features_NF, _ = features_of(exit0, judged.test)
    expected_NK = np.stack([heads.expect(row_F) for row_F in features_NF])
    exits_N = pools_of(judged.test, judged.pools) == 0
    return {
        "phone_exits": auroc(exits_N, expected_NK[:, 3]),
        "share_exiting": round(float(exits_N.mean()), 4),
    }


def _duels(judged: Judged, fitted: CrossFitted, heads: SuccessHeads) -> dict[str, Any]:
    """Against each rival at each γ: Λ so that ``value`` is at least as accurate on validation,
    then both on the reported samples. The rival has its α and pools made anew for that γ."""
    layers = judged.facts.cost_model.layers
    weight_BN = resamples(len(judged.test))
    total_B = weight_BN.sum(1)
    result: dict[str, Any] = {}
    for gamma in GAMMAS:
        other = priced(judged, CostModel.paper(layers, cloud_fee=gamma))
        own = replace(judged.pools, cost_model=other.pools.cost_model)
        learnt = replace(other, test=judged.validation)
        row = {}
        for name in RIVALS:
            known = traces(name, learnt, seeds=1)[0]
            accuracy = float(np.mean(known.answer_N == judged.validation.labels_N))
            price = fitted.choose(accuracy, own)
            mine = value_trace(heads, price, judged.test, own)
            theirs = traces(name, other, seeds=1)[0]
            row[name] = {"price": price} | _duel(judged, mine, theirs, weight_BN, total_B)
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
