"""The paper's seven methods and the rows beside them, run over cached samples.

Shape suffixes: N samples, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lab.evaluate import baselines
from lab.evaluate.metrics import Floats, accuracy, glue_metric, interval, mean_over, resamples
from lab.evaluate.pools import Pools
from lab.evaluate.samples import Samples
from lab.evaluate.simulate import Trace, simulate
from shared.policies import PolicyFacts, RoutingPolicy, make_policy
from shared.policies.static import Random
from shared.pricing.cost_model import CostModel

PAPER_METHODS = (
    "bert", "random", "early-exit", "adaee", "i-splitee", "dimee-fixed", "dimee-adaptive",
)  # fmt: skip
TIER_ROWS = ("mobile", "edge", "cloud")
RIVAL_ROWS = (
    "random-same-mix", "length-only", "nearest-neighbours", "true-difficulty", "cheapest-right",
)  # fmt: skip
SEEDS = 5
ORDERED = ("adaee", "i-splitee", "dimee-adaptive")
"""Methods whose outcome depends on the order of the samples: five orders, the file's first."""
DRAWN = ("random", "random-same-mix")


@dataclass(frozen=True)
class Judged:
    """Everything that a method needs: samples to learn from, samples to report, pools."""

    task: str
    validation: Samples
    test: Samples
    pools: Pools

    @property
    def facts(self) -> PolicyFacts:
        """What policies are made from."""
        return self.pools.facts

    def at(self, cost_model: CostModel) -> Judged:
        """The same under other prices, decisions unchanged."""
        return replace(self, pools=replace(self.pools, cost_model=cost_model))


def traces(name: str, judged: Judged, seeds: int = SEEDS) -> list[Trace]:
    """Run a method; one trace, or one a seed where chance or order matters."""

    def one(policy: RoutingPolicy, order_N: NDArray[np.int64] | None = None) -> Trace:
        return simulate(policy, judged.test, judged.facts, judged.pools.edge_layers, order_N)

    if name in ORDERED:
        count = len(judged.test)
        orders = [np.arange(count)]
        orders += [np.random.default_rng(seed).permutation(count) for seed in range(1, seeds)]
        return [one(make_policy(name, judged.facts), order_N) for order_N in orders]
    if name == "random":
        return [one(make_policy(name, judged.facts, seed)) for seed in range(seeds)]
    if name == "random-same-mix":
        shares = traces("dimee-fixed", judged)[0].shares
        mix = (shares["mobile"], shares["edge"], shares["cloud"])
        return [one(Random(seed, mix)) for seed in range(seeds)]
    if name in RIVAL_ROWS:
        return [one(baselines.Scripted(name, _script(name, judged)))]
    return [one(make_policy(name, judged.facts))]


def _script(name: str, judged: Judged) -> list[Any]:
    pools, validation, test = judged.pools, judged.validation, judged.test
    makers: dict[str, Callable[[], list[Any]]] = {
        "length-only": lambda: baselines.by_length(validation, test, pools),
        "nearest-neighbours": lambda: baselines.by_neighbours(validation, test, pools),
        "true-difficulty": lambda: baselines.true_difficulty(test, pools),
        "cheapest-right": lambda: baselines.cheapest_right(test, judged.facts, pools.edge_layers),
    }
    return makers[name]()


class Scorer:
    """Turns traces into a row: figures with 95 % bootstrap intervals, all over one resampling."""

    def __init__(self, judged: Judged) -> None:
        self._judged = judged
        self._weight_BN = resamples(len(judged.test))
        self._all_N = np.ones((1, len(judged.test)))
        cloud = traces("cloud", judged)
        self._cloud_B = self._mean(accuracy, cloud, self._weight_BN)
        self._cloud = float(self._mean(accuracy, cloud, self._all_N)[0])

    def _mean(self, metric: Any, runs: list[Trace], weight_BN: Floats) -> Floats:
        labels_N = self._judged.test.labels_N
        return mean_over([metric(labels_N, run.answer_N, weight_BN) for run in runs])

    def row(self, runs: list[Trace]) -> dict[str, Any]:
        """Accuracy, GLUE's metric, the change against the cloud, cost and shares of a method."""
        accuracy_B = self._mean(accuracy, runs, self._weight_BN)
        point = float(self._mean(accuracy, runs, self._all_N)[0])
        metric = glue_metric(self._judged.task)
        metric_B = self._mean(metric, runs, self._weight_BN)
        cost_N = np.mean([run.cost_N for run in runs], 0)
        cost_B = self._weight_BN @ cost_N / self._weight_BN.sum(1)
        all_cloud = self._judged.facts.cost_model.all_cloud
        each = [
            float(accuracy(self._judged.test.labels_N, run.answer_N, self._all_N)[0])
            for run in runs
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
        """A row without intervals, for sweeps."""
        cost = float(np.mean([run.cost_N.mean() for run in runs]))
        point = float(self._mean(accuracy, runs, self._all_N)[0])
        return {
            "accuracy": round(point, 4),
            "against_cloud": round(point - self._cloud, 4),
            "cost_lambda": round(cost, 4),
            "cost_change": round(100 * (cost / self._judged.facts.cost_model.all_cloud - 1), 4),
        }
