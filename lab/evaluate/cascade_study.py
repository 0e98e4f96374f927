"""Cascade routing on one result: frontier over Λ, Λ chosen on validation, comparisons by γ.

Nothing here is tuned on what is reported: every Λ comes from the validation part, cross-fitted.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from lab.evaluate.baselines import pools_of
from lab.evaluate.cascade_sweep import CascadeSweep, Part
from lab.evaluate.choose_lambda import (
    SHIPPED,
    CrossFitted,
    Setting,
    all_cloud_accuracy,
    cascade_trace,
)
from lab.evaluate.fit_heads import Reads, features_of, fit_heads
from lab.evaluate.methods import PAPER_METHODS, Judged, Scorer, traces
from lab.evaluate.metrics import auroc, interval, resamples
from lab.evaluate.pools import at_alpha
from lab.evaluate.simulate import Trace, simulate
from lab.evaluate.sweeps import priced
from shared.bundle.correctness_heads import TIERS, CorrectnessHeads, Floats
from shared.domain import Tier
from shared.policies.static import SingleTier
from shared.pricing.cost_model import CLOUD_FEES

DROPS = (0.0, 0.3, 0.5)
CURVE = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Drops in points that the validation part may show; each chooses its setting there."""


def cascade_study(judged: Judged, scorer: Scorer, exit0: tuple[Floats, Floats]) -> dict[str, Any]:
    """All of it for one result."""
    fitted = CrossFitted(exit0, judged.validation, judged.pools)
    known = _Heads(exit0, judged)
    reference = all_cloud_accuracy(judged.validation)
    chosen, frontier = {}, {}
    for drop in DROPS:
        setting = fitted.choose(reference - drop / 100)
        trace = cascade_trace(known.at(setting), setting.price, judged.test, judged.pools)
        chosen[str(drop)] = asdict(setting) | scorer.row([trace])
    chosen["default"] = default_row(judged, scorer, fitted, known)
    for drop in CURVE:
        setting = fitted.choose(reference - drop / 100)
        trace = known.sweep(setting).run(setting.price, judged.pools.cost_model)
        frontier[str(drop)] = asdict(setting) | scorer.brief([trace])
    return {
        "chosen": chosen,
        "frontier": frontier,
        "auroc": _auroc(judged, known.at(Setting(0.0, judged.pools.alpha)), exit0),
        "comparisons": _comparisons(judged, fitted, known),
        "pair_features": pair_auroc(judged, exit0),
        "ablation": _ablation(judged, scorer, fitted, known),
    }


def default_row(
    judged: Judged, scorer: Scorer, fitted: CrossFitted, known: _Heads
) -> dict[str, Any]:
    """The default policy at the setting that a bundle ships with: a promise with a margin."""
    setting = fitted.choose_by(SHIPPED).setting
    trace = cascade_trace(known.at(setting), setting.price, judged.test, judged.pools)
    return asdict(setting) | scorer.row([trace])


ABLATION: dict[str, Part] = {
    "heads alone": "heads",
    "escalation alone": "escalation",
    "both": "both",
}


def _ablation(judged: Judged, scorer: Scorer, fitted: CrossFitted, known: _Heads) -> dict[str, Any]:
    """What heads and escalation bring by themselves, each at settings of its own choice."""
    reference = all_cloud_accuracy(judged.validation)
    table: dict[str, Any] = {}
    for drop in DROPS[:2]:
        row = {}
        for name, part in ABLATION.items():
            setting = fitted.choose(reference - drop / 100, part=part)
            trace = known.sweep(setting).run(setting.price, judged.pools.cost_model, part)
            row[name] = asdict(setting) | scorer.brief([trace])
        table[str(drop)] = row
    return table


class _Heads:
    """Heads fitted on all of validation, and their sweep of what is reported, each made once."""

    def __init__(self, exit0: tuple[Floats, Floats], judged: Judged) -> None:
        self._exit0, self._judged = exit0, judged
        self._made: dict[tuple[float, Reads], CorrectnessHeads] = {}
        self._sweeps: dict[tuple[float, Reads], CascadeSweep] = {}

    def sweep(self, setting: Setting) -> CascadeSweep:
        key = setting.alpha, setting.reads
        if key not in self._sweeps:
            pools = at_alpha(self._judged.pools, setting.alpha)
            self._sweeps[key] = CascadeSweep(self.at(setting), self._judged.test, pools)
        return self._sweeps[key]

    def at(self, setting: Setting) -> CorrectnessHeads:
        key = setting.alpha, setting.reads
        if key not in self._made:
            pools = at_alpha(self._judged.pools, setting.alpha)
            validation = self._judged.validation
            self._made[key] = fit_heads(self._exit0, validation, pools, setting.reads)
        return self._made[key]


def _auroc(judged: Judged, heads: CorrectnessHeads, exit0: tuple[Floats, Floats]) -> dict[str, Any]:
    features_NF, _ = features_of(exit0, judged.test)
    expected_NK = np.stack([heads.expect(row_F) for row_F in features_NF])
    exits_N = pools_of(judged.test, judged.pools) == 0
    return {
        "mobile_exits": auroc(exits_N, expected_NK[:, 3]),
        "share_exiting": round(float(exits_N.mean()), 4),
    }


def _comparisons(judged: Judged, fitted: CrossFitted, known: _Heads) -> dict[str, Any]:
    """``cascade-routing`` against each method of the paper at each γ, on the reported samples.

    Λ is chosen so that cascade routing is at least as accurate as the method on validation; the
    method has its α and pools made anew for that γ.
    """
    weight_BN = resamples(len(judged.test))
    total_B = weight_BN.sum(1)
    result: dict[str, Any] = {}
    for gamma in CLOUD_FEES[1:]:
        other = priced(judged, replace(judged.facts.cost_model, cloud_fee=gamma))
        model = other.pools.cost_model
        learnt = replace(other, test=judged.validation)
        row = {}
        for name in PAPER_METHODS:
            learned = traces(name, learnt, seeds=1)[0]
            accuracy = float(np.mean(learned.answer_N == judged.validation.labels_N))
            setting = fitted.choose(accuracy, model)
            mine = known.sweep(setting).run(setting.price, model)
            theirs = traces(name, other, seeds=1)[0]
            row[name] = asdict(setting) | _compare(judged, mine, theirs, weight_BN, total_B)
        result[str(gamma)] = row
    return result


def _compare(
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
        "method_cost": round(float(theirs.cost_N.mean()), 4),
    }


SURE_AT = 0.9
"""The confidence at which `pair_auroc` calls an exit sure."""


def pair_auroc(judged: Judged, exit0: tuple[Floats, Floats]) -> dict[str, Any] | None:
    """AUROC of the correctness heads with the embedding and with the features of pairs.

    For 'some exit up to n is sure' at `SURE_AT` and 'the edge is right' at that threshold; heads
    are fitted on validation. None for single texts.
    """
    if judged.test.pair_NP is None:
        return None
    pools = at_alpha(judged.pools, SURE_AT)
    edge = simulate(SingleTier(Tier.EDGE), judged.test, pools.facts, pools.edge_layers)
    confidence_N = judged.test.confidence_NE[np.arange(len(judged.test)), edge.exit_N - 1]
    targets = {
        "edge_sure": confidence_N >= np.float32(SURE_AT),
        "edge_right": edge.answer_N == judged.test.labels_N,
    }
    columns = {"edge_sure": len(TIERS) + 1, "edge_right": 1}
    result: dict[str, Any] = {}
    for label, keep in (("before", False), ("after", True)):
        validation, test = (
            samples if keep else replace(samples, pair_NP=None)
            for samples in (judged.validation, judged.test)
        )
        heads = fit_heads(exit0, validation, pools)
        features_NF, _ = features_of(exit0, test)
        expected_NK = np.stack([heads.expect(row_F) for row_F in features_NF])
        result[label] = {
            name: auroc(target_N, expected_NK[:, columns[name]])
            for name, target_N in targets.items()
        }
    return result
