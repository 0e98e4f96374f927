"""Measurements of an exported bundle: its exits, and the policies that the mobile runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from lab.evaluate.samples import Samples
from lab.evaluate.simulate import Trace, simulate
from shared.bundle.loading import Bundle
from shared.domain import Tier
from shared.policies import POLICY_NAMES, PolicyFacts, make_policy
from shared.pricing.cost_model import CLOUD_FEES, CostModel


def policy_table(bundle: Bundle, samples: Samples) -> dict[str, Any]:
    """Return every policy's accuracy (percent), shares and cost against all-cloud, with a γ sweep.

    The sweep keeps the decisions of the bundle's own γ and changes the prices.
    """
    facts = PolicyFacts.of(bundle)
    table: dict[str, Any] = {}
    for name in POLICY_NAMES:
        if name == "cascade-routing" and facts.heads is None:
            continue
        policy = make_policy(name, facts)
        trace = simulate(policy, samples, facts, bundle.manifest.edge_layers)
        table[name] = {
            "accuracy": round(100 * float((trace.answer_N == samples.labels_N).mean()), 2),
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


def _against_all_cloud(trace: Trace, model: CostModel, extra_fee: float) -> float:
    """Return the change in percent if the cloud's fee were ``extra_fee`` λ higher."""
    cost = float(trace.cost_N.mean()) + trace.shares[Tier.CLOUD.value] * extra_fee
    return round(100 * (cost / (model.all_cloud + extra_fee) - 1), 1)


def exit_table(full: Samples, shipped: Samples) -> dict[str, Any]:
    """Return accuracy (percent) and mean confidence by exit in fp32 and as exported.

    ``largest_probability_difference`` compares the two.
    """

    def by_exit(samples: Samples) -> dict[str, list[float]]:
        right_NE = samples.answers_NE == samples.labels_N[:, None]
        return {
            "accuracy": [round(100 * float(value), 2) for value in right_NE.mean(0)],
            "confidence": [round(float(value), 4) for value in samples.confidence_NE.mean(0)],
        }

    difference_NEC = np.abs(full.probabilities_NEC - shipped.probabilities_NEC)
    return {
        "examples": len(full),
        "fp32": by_exit(full),
        "shipped": by_exit(shipped),
        "largest_probability_difference": [round(float(v), 4) for v in difference_NEC.max((0, 2))],
    }
