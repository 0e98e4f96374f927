"""Chooses Λ, the worth of one λ, on the validation part: heads fitted on the other folds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
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

PRICES = tuple(round(float(price), 6) for price in np.geomspace(0.0002, 0.1, 28))
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


def with_heads(pools: Pools, heads: SuccessHeads) -> Pools:
    """The pools with heads, so that their facts make the policy ``value``."""
    return replace(pools, heads=heads)


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
        self._folds: list[tuple[NDArray[np.int64], SuccessHeads]] = []
        self._swept: dict[CostModel, list[tuple[float, float, float]]] = {}
        for fold in range(FOLDS):
            rest = np.flatnonzero(fold_N != fold)
            heads = fit_heads(exit0, validation.take(rest), pools)
            self._folds.append((np.flatnonzero(fold_N == fold), heads))

    def run(self, price: float, pools: Pools | None = None) -> dict[str, NDArray[Any]]:
        """``right_N`` and ``cost_N`` at this Λ; ``pools`` may hold other prices."""
        pools = pools or self._pools
        right_N = np.zeros(len(self._validation), bool)
        cost_N = np.zeros(len(self._validation))
        for rows, heads in self._folds:
            part = self._validation.take(rows)
            policy = Value(heads, pools.cost_model, price)
            trace = simulate(policy, part, pools.facts, pools.edge_layers)
            right_N[rows] = trace.answer_N == part.labels_N
            cost_N[rows] = trace.cost_N
        return {"right": right_N, "cost": cost_N}

    def choose(self, accuracy: float, pools: Pools | None = None) -> float:
        """The Λ of least mean cost among those whose accuracy is at least ``accuracy``.

        The lowest Λ where none is.
        """
        model = (pools or self._pools).cost_model
        if model not in self._swept:
            runs = [(self.run(price, pools), price) for price in PRICES]
            self._swept[model] = [
                (float(run["cost"].mean()), float(run["right"].mean()), price)
                for run, price in runs
            ]
        fit = [(cost, price) for cost, right, price in self._swept[model] if right >= accuracy]
        return min(fit)[1] if fit else PRICES[0]


def all_cloud_accuracy(samples: Samples) -> float:
    """Share that the last layer gets right."""
    return float(np.mean(samples.answers_NE[:, -1] == samples.labels_N))


def priced_heads(
    exit0: tuple[Floats, Floats], validation: Samples, pools: Pools, max_drop: float = 0.0
) -> SuccessHeads:
    """Heads fitted on all of validation, with the Λ whose cross-fitted drop is ≤ ``max_drop``.

    ``max_drop`` is in points against all-cloud.
    """
    fitted = CrossFitted(exit0, validation, pools)
    price = fitted.choose(all_cloud_accuracy(validation) - max_drop / 100)
    return replace(fit_heads(exit0, validation, pools), price=np.array(price))


def value_trace(heads: SuccessHeads, price: float, samples: Samples, pools: Pools) -> Trace:
    """``value`` at this Λ and these pools' prices."""
    policy = Value(heads, pools.cost_model, price)
    return simulate(policy, samples, pools.facts, pools.edge_layers)
