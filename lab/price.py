"""Chooses Λ, the worth of one λ, on the validation part: heads fitted on the other folds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from lab.data import Example, data_hash
from lab.heads import fit_exit0, fit_heads
from lab.pools import Pools
from lab.run import Run
from lab.samples import Samples
from lab.simulate import Trace, simulate
from lab.tables import mean_embeddings
from shared.cost import CostModel
from shared.errors import InvalidInput
from shared.heads import Floats, SuccessHeads
from shared.policies.value import Value
from shared.runtime.encoding import TextEncoder

PRICES = (0.0, *(round(float(price), 6) for price in np.geomspace(0.0002, 0.06, 16)))
"""Candidates for Λ; at 0 nothing is worth more than the cloud, which is asked for everything."""
ALPHAS = (0.95, 0.98, 0.99, 0.995)
FOLDS = 5


def exit0_of_run(run: Run, train: Sequence[Example]) -> tuple[Floats, Floats]:
    """Exit 0 of a run's training part, cached for an equal model and equal data."""
    key = hashlib.sha256(f"1 {data_hash(train)} {run.model_hash()}".encode()).hexdigest()[:16]
    file = run.folder / "outputs" / f"exit0-{key}.safetensors"
    if not file.is_file():
        encoder = TextEncoder(run.tokenizer_file, run.facts["max_tokens"])
        rows = [encoder.encode(row.text, row.pair) for row in train]
        labels_N = np.array([row.label for row in train])
        weight_HC, bias_C = fit_exit0(mean_embeddings(run.model, rows), labels_N)
        file.parent.mkdir(exist_ok=True)
        save_file({"weight": np.ascontiguousarray(weight_HC), "bias": bias_C}, file)
    cached = load_file(file)
    return cached["weight"], cached["bias"]


@dataclass(frozen=True, order=True)
class Setting:
    """What the validation part chooses: Λ, and the α at which phone and edge leave."""

    price: float
    alpha: float


class CrossFitted:
    """``value`` on the validation part as if it had not been fitted there: fold by fold."""

    def __init__(self, exit0: tuple[Floats, Floats], validation: Samples, pools: Pools) -> None:
        if len(validation) < 20 * FOLDS:
            raise InvalidInput(
                f"data: {len(validation)} validation examples are too few for success heads; "
                f"{20 * FOLDS} at least"
            )
        self._validation, self._pools = validation, pools
        fold_N = np.random.default_rng(0).permutation(len(validation)) % FOLDS
        self._rows = [np.flatnonzero(fold_N == fold) for fold in range(FOLDS)]
        self._parts = [validation.take(rows) for rows in self._rows]
        rest = [validation.take(np.flatnonzero(fold_N != fold)) for fold in range(FOLDS)]
        self._heads = {
            alpha: [fit_heads(exit0, part, at_alpha(pools, alpha)) for part in rest]
            for alpha in sorted({pools.alpha, *ALPHAS})
        }
        self._swept: dict[tuple[CostModel, type[Value]], list[tuple[float, float, Setting]]] = {}

    def run(
        self, setting: Setting, cost_model: CostModel, kind: type[Value] = Value
    ) -> dict[str, NDArray[Any]]:
        """``right_N`` and ``cost_N`` at this setting and these prices."""
        right_N = np.zeros(len(self._validation), bool)
        cost_N = np.zeros(len(self._validation))
        pools = replace(self._pools, cost_model=cost_model)
        parts = zip(self._rows, self._parts, self._heads[setting.alpha], strict=True)
        for rows, part, heads in parts:
            trace = value_trace(heads, setting.price, part, pools, kind)
            right_N[rows] = trace.answer_N == part.labels_N
            cost_N[rows] = trace.cost_N
        return {"right": right_N, "cost": cost_N}

    def choose(
        self, accuracy: float, cost_model: CostModel | None = None, kind: type[Value] = Value
    ) -> Setting:
        """The setting of least mean cost among those whose accuracy is at least ``accuracy``.

        Where none is, the most accurate.
        """
        model = cost_model or self._pools.cost_model
        if (model, kind) not in self._swept:
            settings = [Setting(price, alpha) for alpha in self._heads for price in PRICES]
            runs = [(self.run(setting, model, kind), setting) for setting in settings]
            self._swept[model, kind] = [
                (float(run["cost"].mean()), float(run["right"].mean()), setting)
                for run, setting in runs
            ]
        fit = [
            (cost, setting)
            for cost, right, setting in self._swept[model, kind]
            if right >= accuracy
        ]
        if fit:
            return min(fit)[1]
        return max(self._swept[model, kind], key=lambda row: (row[1], -row[0]))[2]


def at_alpha(pools: Pools, alpha: float) -> Pools:
    """The same pools for exits at another α; centroids and counts stay the paper's."""
    return replace(pools, alpha=alpha)


def all_cloud_accuracy(samples: Samples) -> float:
    """Share that the last layer gets right."""
    return float(np.mean(samples.answers_NE[:, -1] == samples.labels_N))


def priced_heads(
    exit0: tuple[Floats, Floats], validation: Samples, pools: Pools, max_drop: float = 0.0
) -> SuccessHeads:
    """Heads fitted on all of validation, at the setting whose cross-fitted drop is ≤ ``max_drop``.

    ``max_drop`` is in points against all-cloud.
    """
    chosen = CrossFitted(exit0, validation, pools)
    setting = chosen.choose(all_cloud_accuracy(validation) - max_drop / 100)
    heads = fit_heads(exit0, validation, at_alpha(pools, setting.alpha))
    return replace(heads, price=np.array(setting.price))


def value_trace(
    heads: SuccessHeads,
    price: float,
    samples: Samples,
    pools: Pools,
    kind: type[Value] = Value,
) -> Trace:
    """``value``, or a part of it, at this Λ and these pools' prices."""
    policy = kind(heads, pools.cost_model, price)
    return simulate(policy, samples, pools.facts, pools.edge_layers)
