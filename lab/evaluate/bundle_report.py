"""Measurements of an exported bundle: its exits, and the policies that the mobile runs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lab.evaluate.metrics import metric_function
from lab.evaluate.samples import Samples
from lab.evaluate.simulate import Trace, simulate
from shared.bundle.loading import Bundle
from shared.domain import Tier
from shared.policies import POLICY_NAMES, PolicyFacts, make_policy
from shared.pricing.cost_model import CLOUD_FEES, CostModel


def policy_table(bundle: Bundle, samples: Samples) -> dict[str, Any]:
    """Return every policy's accuracy (percent), shares and cost against all-cloud, with a γ sweep.

    The sweep keeps the decisions of the bundle's own γ and changes the prices. A task with another
    metric than accuracy has it too, in percent.
    """
    facts = PolicyFacts.of(bundle)
    metric = bundle.manifest.metric
    table: dict[str, Any] = {}
    for name in POLICY_NAMES:
        if name == "cascade-routing" and facts.heads is None:
            continue
        policy = make_policy(name, facts)
        trace = simulate(policy, samples, facts, bundle.manifest.edge_layers)
        table[name] = {
            "accuracy": round(100 * float((trace.answer_N == samples.labels_N).mean()), 2),
            **_metric(metric, samples, trace.answer_N),
            "shares": {tier: round(share, 4) for tier, share in trace.shares.items()},
            "cost_lambda": round(float(trace.cost_N.mean()), 3),
            "cost_against_all_cloud": _against_all_cloud(trace, bundle.cost_model, 0.0),
            "by_cloud_fee": {
                str(gamma): _against_all_cloud(
                    trace, bundle.cost_model, gamma - bundle.cost_model.cloud_fee
                )
                for gamma in CLOUD_FEES
            },
        }
    return table


def _metric(name: str, samples: Samples, answer_N: NDArray[np.int64]) -> dict[str, float]:
    """Return the task's metric of these answers in percent; nothing if it is accuracy."""
    if name == "accuracy":
        return {}
    once_BN = np.ones((1, len(samples)))
    (value,) = metric_function(name)(samples.labels_N, answer_N, once_BN)
    return {"metric": round(float(value), 2)}


def _against_all_cloud(trace: Trace, model: CostModel, extra_fee: float) -> float:
    """Return the change in percent if the cloud's fee were ``extra_fee`` λ higher."""
    cost = float(trace.cost_N.mean()) + trace.shares[Tier.CLOUD.value] * extra_fee
    return round(100 * (cost / (model.all_cloud + extra_fee) - 1), 1)


def exit_table(full: Samples, shipped: Samples, metric: str = "accuracy") -> dict[str, Any]:
    """Return accuracy (percent) and mean confidence by exit in fp32 and as exported.

    Another metric of the task is there too, in percent. ``largest_probability_difference`` compares
    the two.
    """

    def by_exit(samples: Samples) -> dict[str, list[float]]:
        right_NE = samples.answers_NE == samples.labels_N[:, None]
        figures = {
            "accuracy": [round(100 * float(value), 2) for value in right_NE.mean(0)],
            "confidence": [round(float(value), 4) for value in samples.confidence_NE.mean(0)],
        }
        if metric != "accuracy":
            rows = [_metric(metric, samples, answer_N) for answer_N in samples.answers_NE.T]
            figures["metric"] = [row["metric"] for row in rows]
        return figures

    difference_NEC = np.abs(full.probabilities_NEC - shipped.probabilities_NEC)
    return {
        "examples": len(full),
        "fp32": by_exit(full),
        "shipped": by_exit(shipped),
        "largest_probability_difference": [round(float(v), 4) for v in difference_NEC.max((0, 2))],
    }
