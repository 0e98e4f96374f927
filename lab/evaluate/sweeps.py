"""Sweeps over γ, the four prices, α, m and n, and measurements of the routers.

Shape suffixes: N samples, D difficulties, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lab.evaluate import baselines
from lab.evaluate.baselines import pools_of
from lab.evaluate.methods import (
    BASELINE_ROWS,
    PAPER_METHODS,
    TIER_ROWS,
    EvaluationData,
    Scorer,
    traces,
)
from lab.evaluate.metrics import auroc
from lab.evaluate.pools import make_pools
from lab.evaluate.samples import Samples
from lab.evaluate.simulate import simulate
from shared.domain import Tier
from shared.policies.centroids import DimeeAdaptive
from shared.policies.static import SingleTier
from shared.pricing.cost_model import CLOUD_FEES, CostModel

PRICE_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
PRICES = ("mobile_layer", "edge_layer", "offload_edge", "offload_cloud")
HIGH_ALPHAS = (0.98, 0.99, 0.995, 0.999)
SWEPT_METHODS = (*PAPER_METHODS, *TIER_ROWS)
DRIFT_STEPS = (10, 100, 1000)


def refit_for_prices(data: EvaluationData, cost_model: CostModel) -> EvaluationData:
    """Refit α, pools and centroids for other prices."""
    pools = data.pools
    refitted = make_pools(
        data.validation, cost_model, pools.mobile_layers, pools.edge_layers, pools.mu
    )
    return replace(data, pools=refitted)


def _rows(data: EvaluationData, scorer: Scorer, names: Sequence[str]) -> dict[str, Any]:
    return {name: scorer.brief(traces(name, data, seeds=1)) for name in names}


def _swept(data: EvaluationData, cost_model: CostModel) -> dict[str, Any]:
    other = refit_for_prices(data, cost_model)
    return {
        "alpha": round(other.pools.alpha, 4),
        "all_cloud": round(cost_model.all_cloud, 4),
        "methods": _rows(other, Scorer(other), (*SWEPT_METHODS, *data.own_policies)),
    }


def by_cloud_fee(data: EvaluationData) -> dict[str, Any]:
    """Sweep γ, which has no value in the paper and decides the sign of the saving."""
    model = data.facts.cost_model
    return {str(g): _swept(data, replace(model, cloud_fee=g)) for g in CLOUD_FEES}


def by_price(data: EvaluationData) -> dict[str, Any]:
    """Figure 3: vary each of λm, λe, oe and oc by a factor, with the others and γ constant."""
    model = data.facts.cost_model
    return {
        price: {
            str(factor): _swept(data, replace(model, **{price: getattr(model, price) * factor}))
            for factor in PRICE_FACTORS
        }
        for price in PRICES
    }


def by_alpha(data: EvaluationData, scorer: Scorer) -> dict[str, Any]:
    """Frontiers: accuracy and cost over α, of every method that has an α and the user's policies.

    Pools and centroids are refitted at each α, with constant prices.
    """
    pools = data.pools
    classes = pools.classes
    grid = [round(float(a), 4) for a in np.linspace(1 / classes, 1, 10)] + list(HIGH_ALPHAS)
    names = ("early-exit", "i-splitee", "dimee-fixed", "dimee-adaptive", "edge", *BASELINE_ROWS,
             *data.own_policies)  # fmt: skip
    result = {}
    for alpha in sorted(grid):
        refitted = make_pools(
            data.validation,
            pools.cost_model,
            pools.mobile_layers,
            pools.edge_layers,
            pools.mu,
            alpha,
        )
        other = replace(data, pools=refitted)
        result[str(alpha)] = {"pools": refitted.sizes, "methods": _rows(other, scorer, names)}
    return result


def by_layers(data: EvaluationData, scorer: Scorer) -> list[dict[str, Any]]:
    """Ablation of m and n, with α chosen for each pair."""
    pools, rows = data.pools, []
    layers = pools.cost_model.layers
    for m in range(1, layers - 1):
        for n in range(m + 1, layers):
            refitted = make_pools(data.validation, pools.cost_model, m, n, pools.mu)
            other = replace(data, pools=refitted)
            rows.append(
                {"m": m, "n": n, "alpha": round(refitted.alpha, 4)}
                | scorer.brief(traces("dimee-fixed", other))
            )
    return rows


def drift(data: EvaluationData) -> dict[str, Any]:
    """Return the distance by which the adaptive rule has moved each centroid after k samples.

    Distances are in units of the distance to the nearest other centroid at the start; ``changed``
    is the share of the samples that the fixed rule sends to another tier.
    """
    facts, test = data.facts, data.test
    policy = DimeeAdaptive(facts.centroids_DH, facts.counts_D)
    start_DH = policy.centroids_DH.copy()
    gap_DD = np.linalg.norm(start_DH[:, None] - start_DH[None], axis=2)
    np.fill_diagonal(gap_DD, np.inf)
    unit_D = np.nanmin(np.where(np.isnan(gap_DD), np.inf, gap_DD), 1)
    moved: dict[str, list[float | None]] = {}
    for i in range(len(test)):
        policy.route(test.features(i))
        if i + 1 in DRIFT_STEPS or i + 1 == len(test):
            distance_D = np.linalg.norm(policy.centroids_DH - start_DH, axis=1) / unit_D
            moved[str(i + 1)] = [
                None if np.isnan(step) else round(float(step), 4) for step in distance_D
            ]
    fixed, adaptive = (traces(f"dimee-{kind}", data)[0] for kind in ("fixed", "adaptive"))
    return {
        "moved": moved,
        "validation_counts": [int(count) for count in facts.counts_D],
        "changed": round(float(np.mean(fixed.tier_N != adaptive.tier_N)), 4),
    }


def router_auroc(data: EvaluationData) -> dict[str, Any]:
    """Return the AUROC of each router for 'the mobile is wrong' and 'the mobile stays below α'."""
    result: dict[str, Any] = {}
    for target, label in (
        (_mobile_wrong, "mobile_wrong"),
        (_mobile_below_alpha, "mobile_below_alpha"),
    ):
        validation_N, test_N = target(data.validation, data), target(data.test, data)
        scored = baselines.scores(data.validation, data.test, data.pools, validation_N)
        result[label] = {"share": round(float(test_N.mean()), 4)} | {
            name: auroc(test_N, score_N) for name, score_N in scored.items()
        }
    return result


def _mobile_wrong(samples: Samples, data: EvaluationData) -> Any:
    mobile = simulate(SingleTier(Tier.MOBILE), samples, data.facts, data.pools.edge_layers)
    return mobile.answer_N != samples.labels_N


def _mobile_below_alpha(samples: Samples, data: EvaluationData) -> Any:
    return pools_of(samples, data.pools) != 0
