"""Sweeps and ablations over cached samples: γ, the four prices, α, m and n, the adaptive rule.

Shape suffixes: N samples, D difficulties, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lab.evaluate import baselines
from lab.evaluate.methods import PAPER_METHODS, RIVAL_ROWS, TIER_ROWS, Judged, Scorer, traces
from lab.evaluate.metrics import auroc
from lab.evaluate.pools import make_pools
from lab.evaluate.reward import place
from lab.evaluate.samples import Samples
from lab.evaluate.simulate import simulate
from shared.domain import Tier
from shared.policies.centroids import DimeeAdaptive
from shared.policies.static import SingleTier
from shared.pricing.cost_model import CLOUD_FEES, CostModel

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
PRICES = ("mobile_layer", "edge_layer", "offload_edge", "offload_cloud")
SURE = (0.98, 0.99, 0.995, 0.999)
SWEPT = (*PAPER_METHODS, *TIER_ROWS)
STEPS = (10, 100, 1000)


def priced(judged: Judged, cost_model: CostModel) -> Judged:
    """The whole method anew under other prices: α by expected reward, pools, centroids."""
    pools = judged.pools
    made = make_pools(
        judged.validation, cost_model, pools.mobile_layers, pools.edge_layers, pools.mu
    )
    return replace(judged, pools=made)


def _rows(judged: Judged, scorer: Scorer, names: Sequence[str]) -> dict[str, Any]:
    return {name: scorer.brief(traces(name, judged, seeds=1)) for name in names}


def _swept(judged: Judged, cost_model: CostModel) -> dict[str, Any]:
    other = priced(judged, cost_model)
    return {
        "alpha": round(other.pools.alpha, 4),
        "all_cloud": round(cost_model.all_cloud, 4),
        "methods": _rows(other, Scorer(other), SWEPT),
    }


def by_cloud_fee(judged: Judged) -> dict[str, Any]:
    """The sweep over γ: the paper gives it no number, and the sign of the saving hangs on it."""
    model = judged.facts.cost_model
    return {str(g): _swept(judged, replace(model, cloud_fee=g)) for g in CLOUD_FEES}


def by_price(judged: Judged) -> dict[str, Any]:
    """Figure 3: each of λm, λe, oe and oc times a factor, the others and γ constant."""
    model = judged.facts.cost_model
    return {
        price: {
            str(factor): _swept(judged, replace(model, **{price: getattr(model, price) * factor}))
            for factor in FACTORS
        }
        for price in PRICES
    }


def by_alpha(judged: Judged, scorer: Scorer) -> dict[str, Any]:
    """Accuracy and cost of every method that has an α, over α: the frontiers.

    The pools and centroids are made anew at each α, the costs stay.
    """
    pools = judged.pools
    classes = pools.classes
    grid = [round(float(a), 4) for a in np.linspace(1 / classes, 1, 10)] + list(SURE)
    names = ("early-exit", "i-splitee", "dimee-fixed", "dimee-adaptive", "edge", *RIVAL_ROWS)
    result = {}
    for alpha in sorted(grid):
        made = make_pools(
            judged.validation,
            pools.cost_model,
            pools.mobile_layers,
            pools.edge_layers,
            pools.mu,
            alpha,
        )
        other = replace(judged, pools=made)
        result[str(alpha)] = {"pools": made.sizes, "methods": _rows(other, scorer, names)}
    return result


def by_layers(judged: Judged, scorer: Scorer) -> list[dict[str, Any]]:
    """The ablation of m and n, α chosen anew for each pair."""
    pools, rows = judged.pools, []
    layers = pools.cost_model.layers
    for m in range(1, layers - 1):
        for n in range(m + 1, layers):
            made = make_pools(judged.validation, pools.cost_model, m, n, pools.mu)
            other = replace(judged, pools=made)
            rows.append(
                {"m": m, "n": n, "alpha": round(made.alpha, 4)}
                | scorer.brief(traces("dimee-fixed", other))
            )
    return rows


def drift(judged: Judged) -> dict[str, Any]:
    """How far the adaptive rule has moved each centroid after k samples.

    In units of the distance to the nearest other centroid at the start; ``changed`` is the share
    of the samples that the fixed rule would have sent elsewhere.
    """
    facts, test = judged.facts, judged.test
    policy = DimeeAdaptive(facts.centroids_DH, facts.counts_D)
    start_DH = policy.centroids_DH.copy()
    gap_DD = np.linalg.norm(start_DH[:, None] - start_DH[None], axis=2)
    np.fill_diagonal(gap_DD, np.inf)
    unit_D = np.nanmin(np.where(np.isnan(gap_DD), np.inf, gap_DD), 1)
    moved: dict[str, list[float | None]] = {}
    for i in range(len(test)):
        policy.route(test.features(i))
        if i + 1 in STEPS or i + 1 == len(test):
            path_D = np.linalg.norm(policy.centroids_DH - start_DH, axis=1) / unit_D
            moved[str(i + 1)] = [
                None if np.isnan(step) else round(float(step), 4) for step in path_D
            ]
    fixed, adaptive = (traces(f"dimee-{kind}", judged)[0] for kind in ("fixed", "adaptive"))
    return {
        "moved": moved,
        "validation_counts": [int(count) for count in facts.counts_D],
        "changed": round(float(np.mean(fixed.tier_N != adaptive.tier_N)), 4),
    }


def router_auroc(judged: Judged) -> dict[str, Any]:
    """AUROC of each router for 'the mobile would be wrong' and 'the mobile would not be sure'."""
    result: dict[str, Any] = {}
    for target, label in ((_mobile_wrong, "mobile_wrong"), (_mobile_unsure, "mobile_unsure")):
        known_N, asked_N = target(judged.validation, judged), target(judged.test, judged)
        scored = baselines.scores(judged.validation, judged.test, judged.pools, known_N)
        result[label] = {"share": round(float(asked_N.mean()), 4)} | {
            name: auroc(asked_N, score_N) for name, score_N in scored.items()
        }
    return result


def _mobile_wrong(samples: Samples, judged: Judged) -> Any:
    mobile = simulate(SingleTier(Tier.MOBILE), samples, judged.facts, judged.pools.edge_layers)
    return mobile.answer_N != samples.labels_N


def _mobile_unsure(samples: Samples, judged: Judged) -> Any:
    pools = judged.pools
    placed = place(samples.confidence_NE.T, pools.alpha, pools.mobile_layers, pools.edge_layers)
    return placed.pool_N != 0
