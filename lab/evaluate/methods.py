"""The paper's seven methods, single tiers and baselines, simulated over cached samples.

Shape suffixes: N samples, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lab.evaluate import baselines
from lab.evaluate.metrics import Floats, accuracy, interval, mean_over, metric_function, resamples
from lab.evaluate.pools import Pools
from lab.evaluate.samples import Samples
from lab.evaluate.simulate import Trace, simulate
from shared.errors import InvalidInput
from shared.policies import POLICY_NAMES, PolicyFacts, RoutingPolicy, make_policy
from shared.policies.registry import uses_seed
from shared.policies.static import Random

PAPER_METHODS = (
    "bert", "random", "early-exit", "adaee", "i-splitee", "dimee-fixed", "dimee-adaptive",
)  # fmt: skip
TIER_ROWS = ("mobile", "edge", "cloud")
BASELINE_ROWS = (
    "random-same-mix", "length-only", "nearest-neighbours", "true-difficulty", "cheapest-right",
)  # fmt: skip
SEEDS = 5
ORDERED = ("adaee", "i-splitee", "dimee-adaptive")
"""Methods that depend on the order of the samples. They run in five orders, first the file's."""


@dataclass(frozen=True)
class EvaluationData:
    """Samples to fit on (``validation``), samples to report (``test``), pools, and metric.

    ``own_policies`` holds the user's policies: name and what to give to `make_policy`.
    """

    metric: str
    validation: Samples
    test: Samples
    pools: Pools
    own_policies: Mapping[str, str] = field(default_factory=dict)

    @property
    def facts(self) -> PolicyFacts:
        """Facts from which policies are made."""
        return self.pools.facts


def traces(name: str, data: EvaluationData, seeds: int = SEEDS) -> list[Trace]:
    """Simulate a method: one trace, or one for each seed if chance or order matters."""

    def run(policy: RoutingPolicy, order_N: NDArray[np.int64] | None = None) -> Trace:
        return simulate(policy, data.test, data.facts, data.pools.edge_layers, order_N)

    path = data.own_policies.get(name, name)
    own = make_policy(path, data.facts) if name in data.own_policies else None
    if name in ORDERED or (own is not None and own.learns):
        count = len(data.test)
        orders = [np.arange(count)]
        orders += [np.random.default_rng(seed).permutation(count) for seed in range(1, seeds)]
        return [run(make_policy(path, data.facts), order_N) for order_N in orders]
    if name == "random" or (own is not None and uses_seed(path)):
        return [run(make_policy(path, data.facts, seed)) for seed in range(seeds)]
    if name == "random-same-mix":
        shares = traces("dimee-fixed", data)[0].shares
        probabilities = (shares["mobile"], shares["edge"], shares["cloud"])
        return [run(Random(seed, probabilities)) for seed in range(seeds)]
    if name in BASELINE_ROWS:
        return [run(baselines.FixedDecisions(name, _baseline_tiers(name, data)))]
    return [run(make_policy(path, data.facts))]


def find_own_policies(paths: Sequence[str], facts: PolicyFacts) -> dict[str, str]:
    """Return the name of each policy in ``paths``; raises `InvalidInput` if a name is in use."""
    found: dict[str, str] = {}
    for path in paths:
        if path in POLICY_NAMES:
            raise InvalidInput(f"--policy: {path} is built in and evaluated anyway; leave it out")
        name = make_policy(path, facts).name
        if name in found or name in BASELINE_ROWS:
            raise InvalidInput(f"--policy: another row has the name {name!r}; give each its own")
        found[name] = path
    return found


def _baseline_tiers(name: str, data: EvaluationData) -> list[Any]:
    pools, validation, test = data.pools, data.validation, data.test
    makers: dict[str, Callable[[], list[Any]]] = {
        "length-only": lambda: baselines.by_length(validation, test, pools),
        "nearest-neighbours": lambda: baselines.by_neighbours(validation, test, pools),
        "true-difficulty": lambda: baselines.true_difficulty(test, pools),
        "cheapest-right": lambda: baselines.cheapest_right(test, data.facts, pools.edge_layers),
    }
    return makers[name]()


class Scorer:
    """Compute rows of figures with 95 % bootstrap intervals, all from the same resamples."""

    def __init__(self, data: EvaluationData) -> None:
        self._data = data
        self._weight_BN = resamples(len(data.test))
        self._all_N = np.ones((1, len(data.test)))
        cloud = traces("cloud", data)
        self._cloud_B = self._mean(accuracy, cloud, self._weight_BN)
        self._cloud = float(self._mean(accuracy, cloud, self._all_N)[0])

    def _mean(self, metric: Any, runs: list[Trace], weight_BN: Floats) -> Floats:
        labels_N = self._data.test.labels_N
        return mean_over([metric(labels_N, run.answer_N, weight_BN) for run in runs])

    def row(self, runs: list[Trace]) -> dict[str, Any]:
        """Return accuracy, GLUE's metric, change against the cloud, cost and shares of a method."""
        accuracy_B = self._mean(accuracy, runs, self._weight_BN)
        point = float(self._mean(accuracy, runs, self._all_N)[0])
        metric = metric_function(self._data.metric)
        metric_B = self._mean(metric, runs, self._weight_BN)
        cost_N = np.mean([run.cost_N for run in runs], 0)
        cost_B = self._weight_BN @ cost_N / self._weight_BN.sum(1)
        all_cloud = self._data.facts.cost_model.all_cloud
        each = [
            float(accuracy(self._data.test.labels_N, run.answer_N, self._all_N)[0]) for run in runs
        ]
        return {
            "accuracy": round(point, 4),
            "accuracy_interval": interval(accuracy_B),
            "metric": round(float(self._mean(metric, runs, self._all_N)[0]), 4),
            "metric_interval": interval(metric_B),
            "against_cloud": round(point - self._cloud, 4),
            "against_cloud_interval": interval(accuracy_B - self._cloud_B),
            "cost_lambda": round(float(cost_N.mean()), 4),
            "cost_change": round(100 * (float(cost_N.mean()) / all_cloud - 1), 4),
            "cost_change_interval": interval(100 * (cost_B / all_cloud - 1)),
            "shares": {
                tier: round(float(np.mean([run.shares[tier] for run in runs])), 4)
                for tier in runs[0].shares
            },
            "mean_exit": round(float(np.mean([run.exit_N.mean() for run in runs])), 4),
            "runs": len(runs),
            "spread_over_runs": round(float(np.std(each)), 4),
        }

    def brief(self, runs: list[Trace]) -> dict[str, float]:
        """Return a row without intervals, for sweeps."""
        cost = float(np.mean([run.cost_N.mean() for run in runs]))
        point = float(self._mean(accuracy, runs, self._all_N)[0])
        return {
            "accuracy": round(point, 4),
            "against_cloud": round(point - self._cloud, 4),
            "cost_lambda": round(cost, 4),
            "cost_change": round(100 * (cost / self._data.facts.cost_model.all_cloud - 1), 4),
        }
