"""Study of cascade routing: frontier over Λ, default setting, ablations, comparisons by γ.

Every Λ is chosen on the validation part, cross-fitted; the reported examples choose nothing.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np

from lab.evaluate.baselines import pools_of
from lab.evaluate.cascade_sweep import CascadeSweep, Part
from lab.evaluate.choose_lambda import (
    DEFAULT_LIMIT,
    CrossFitted,
    Setting,
    all_cloud_accuracy,
    cascade_trace,
)
from lab.evaluate.fit_heads import HeadInputs, features_of, fit_heads
from lab.evaluate.methods import PAPER_METHODS, EvaluationData, Scorer, traces
from lab.evaluate.metrics import auroc, interval, resamples
from lab.evaluate.pools import with_alpha
from lab.evaluate.simulate import Trace, simulate
from lab.evaluate.sweeps import refit_for_prices
from shared.bundle.correctness_heads import TIERS, CorrectnessHeads, Floats
from shared.domain import Tier
from shared.policies.static import SingleTier
from shared.pricing.cost_model import CLOUD_FEES

DROPS = (0.0, 0.3, 0.5)
CURVE = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Allowed drops on the validation part, in points."""


def cascade_study(
    data: EvaluationData, scorer: Scorer, embedding_classifier: tuple[Floats, Floats]
) -> dict[str, Any]:
    """Return all parts of the study."""
    fitted = CrossFitted(embedding_classifier, data.validation, data.pools)
    heads = _FittedHeads(embedding_classifier, data)
    reference = all_cloud_accuracy(data.validation)
    chosen, frontier = {}, {}
    for drop in DROPS:
        setting = fitted.choose(reference - drop / 100)
        trace = cascade_trace(heads.at(setting), setting.price, data.test, data.pools)
        chosen[str(drop)] = asdict(setting) | scorer.row([trace])
    chosen["default"] = default_row(data, scorer, fitted, heads)
    for drop in CURVE:
        setting = fitted.choose(reference - drop / 100)
        trace = heads.sweep(setting).run(setting.price, data.pools.cost_model)
        frontier[str(drop)] = asdict(setting) | scorer.brief([trace])
    return {
        "chosen": chosen,
        "frontier": frontier,
        "auroc": _auroc(data, heads.at(Setting(0.0, data.pools.alpha)), embedding_classifier),
        "comparisons": _comparisons(data, fitted, heads),
        "pair_features": pair_auroc(data, embedding_classifier),
        "ablation": _ablation(data, scorer, fitted, heads),
    }


def default_row(
    data: EvaluationData, scorer: Scorer, fitted: CrossFitted, heads: _FittedHeads
) -> dict[str, Any]:
    """Return the row of the default policy at the setting of an exported bundle."""
    setting = fitted.choose_within(DEFAULT_LIMIT).setting
    trace = cascade_trace(heads.at(setting), setting.price, data.test, data.pools)
    return asdict(setting) | scorer.row([trace])


ABLATION: dict[str, Part] = {
    "heads alone": "heads",
    "escalation alone": "escalation",
    "both": "both",
}


def _ablation(
    data: EvaluationData, scorer: Scorer, fitted: CrossFitted, heads: _FittedHeads
) -> dict[str, Any]:
    """Return the rows of heads alone, escalation alone, and both, each at its own settings."""
    reference = all_cloud_accuracy(data.validation)
    table: dict[str, Any] = {}
    for drop in DROPS[:2]:
        row = {}
        for name, part in ABLATION.items():
            setting = fitted.choose(reference - drop / 100, part=part)
            trace = heads.sweep(setting).run(setting.price, data.pools.cost_model, part)
            row[name] = asdict(setting) | scorer.brief([trace])
        table[str(drop)] = row
    return table


class _FittedHeads:
    """Heads fitted on all of validation, and their sweeps of the reported samples, cached."""

    def __init__(self, embedding_classifier: tuple[Floats, Floats], data: EvaluationData) -> None:
        self._embedding_classifier, self._data = embedding_classifier, data
        self._heads: dict[tuple[float, HeadInputs], CorrectnessHeads] = {}
        self._sweeps: dict[tuple[float, HeadInputs], CascadeSweep] = {}

    def sweep(self, setting: Setting) -> CascadeSweep:
        key = setting.alpha, setting.reads
        if key not in self._sweeps:
            pools = with_alpha(self._data.pools, setting.alpha)
            self._sweeps[key] = CascadeSweep(self.at(setting), self._data.test, pools)
        return self._sweeps[key]

    def at(self, setting: Setting) -> CorrectnessHeads:
        key = setting.alpha, setting.reads
        if key not in self._heads:
            pools = with_alpha(self._data.pools, setting.alpha)
            validation = self._data.validation
            self._heads[key] = fit_heads(
                self._embedding_classifier, validation, pools, setting.reads
            )
        return self._heads[key]


def _auroc(
    data: EvaluationData, heads: CorrectnessHeads, embedding_classifier: tuple[Floats, Floats]
) -> dict[str, Any]:
    features_NF, _ = features_of(embedding_classifier, data.test)
    expected_NK = np.stack([heads.expect(row_F) for row_F in features_NF])
    exits_N = pools_of(data.test, data.pools) == 0
    return {
        "mobile_exits": auroc(exits_N, expected_NK[:, 3]),
        "share_exiting": round(float(exits_N.mean()), 4),
    }


def _comparisons(data: EvaluationData, fitted: CrossFitted, heads: _FittedHeads) -> dict[str, Any]:
    """Compare ``cascade-routing`` with each method of the paper at each γ, on the reported samples.

    Λ is chosen so that cascade routing is at least as accurate as the method on validation; α and
    pools of the method are refitted for that γ.
    """
    weight_BN = resamples(len(data.test))
    total_B = weight_BN.sum(1)
    result: dict[str, Any] = {}
    for gamma in CLOUD_FEES[1:]:
        other = refit_for_prices(data, replace(data.facts.cost_model, cloud_fee=gamma))
        model = other.pools.cost_model
        on_validation = replace(other, test=data.validation)
        row = {}
        for name in PAPER_METHODS:
            validated = traces(name, on_validation, seeds=1)[0]
            accuracy = float(np.mean(validated.answer_N == data.validation.labels_N))
            setting = fitted.choose(accuracy, model)
            cascade = heads.sweep(setting).run(setting.price, model)
            method = traces(name, other, seeds=1)[0]
            row[name] = asdict(setting) | _compare(data, cascade, method, weight_BN, total_B)
        result[str(gamma)] = row
    return result


def _compare(
    data: EvaluationData, cascade: Trace, method: Trace, weight_BN: Floats, total_B: Floats
) -> dict[str, Any]:
    labels_N = data.test.labels_N
    right_N = (cascade.answer_N == labels_N) * 100.0 - (method.answer_N == labels_N) * 100.0
    cost_N = cascade.cost_N - method.cost_N
    return {
        "accuracy_difference": round(float(right_N.mean()), 4),
        "accuracy_interval": interval(weight_BN @ right_N / total_B),
        "cost_difference": round(float(cost_N.mean()), 4),
        "cost_interval": interval(weight_BN @ cost_N / total_B),
        "cost": round(float(cascade.cost_N.mean()), 4),
        "method_cost": round(float(method.cost_N.mean()), 4),
    }


CONFIDENT_AT = 0.9
"""Threshold of confident exits in `pair_auroc`."""


def pair_auroc(
    data: EvaluationData, embedding_classifier: tuple[Floats, Floats]
) -> dict[str, Any] | None:
    """Return the AUROC of the correctness heads without and with the features of pairs.

    The targets are 'some exit up to n reaches `CONFIDENT_AT`' and 'the edge is right' at that
    threshold; the heads are fitted on validation. None for single texts.
    """
    if data.test.pair_NP is None:
        return None
    pools = with_alpha(data.pools, CONFIDENT_AT)
    edge = simulate(SingleTier(Tier.EDGE), data.test, pools.facts, pools.edge_layers)
    confidence_N = data.test.confidence_NE[np.arange(len(data.test)), edge.exit_N - 1]
    targets = {
        "edge_confident": confidence_N >= np.float32(CONFIDENT_AT),
        "edge_right": edge.answer_N == data.test.labels_N,
    }
    columns = {"edge_confident": len(TIERS) + 1, "edge_right": 1}
    result: dict[str, Any] = {}
    for when, with_pairs in (("before", False), ("after", True)):
        validation, test = (
            samples if with_pairs else replace(samples, pair_NP=None)
            for samples in (data.validation, data.test)
        )
        heads = fit_heads(embedding_classifier, validation, pools)
        features_NF, _ = features_of(embedding_classifier, test)
        expected_NK = np.stack([heads.expect(row_F) for row_F in features_NF])
        result[when] = {
            name: auroc(target_N, expected_NK[:, columns[name]])
            for name, target_N in targets.items()
        }
    return result
