"""Chooses Λ, the worth of one λ, on the validation part: heads fitted on the other folds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from lab.data.examples import Example, data_hash
from lab.evaluate.cascade_sweep import CascadeSweep, Part
from lab.evaluate.fit_heads import Reads, fit_exit0, fit_heads
from lab.evaluate.pools import Pools, at_alpha
from lab.evaluate.samples import Samples
from lab.evaluate.simulate import Trace, simulate
from lab.models.embedding_tables import mean_embeddings
from lab.models.run import Run
from shared.bundle.correctness_heads import CorrectnessHeads, Floats
from shared.errors import InvalidInput
from shared.inference.tokenizer import TextEncoder
from shared.policies.cascade_routing import CascadeRouting
from shared.pricing.cost_model import CostModel

PRICES = (
    *(0.0, 0.00002, 0.00005, 0.0001),
    *(round(float(price), 6) for price in np.geomspace(0.0002, 0.06, 16)),
)
"""Candidates for Λ; at 0 nothing is worth more than the cloud, which is asked for everything."""
TEXT_ALPHAS = (0.95, 0.98, 0.99, 0.995)
ALPHAS: dict[Reads, tuple[float, ...]] = {
    "text": TEXT_ALPHAS,
    "answers": (0.8, 0.9, *TEXT_ALPHAS),
}
"""Candidates for α beside the paper's. Heads that read the text choose among fewer: with more
settings to choose from, the best one on validation is more often the luckiest."""
PREFERENCE = 5.0
"""Percent of all-cloud that heads reading answers alone must save beyond the others to be taken."""
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
    """Setting chosen on the validation part: Λ, α of the exits, and the input of the heads."""

    price: float
    alpha: float
    reads: Reads = "text"


def folds_of(validation: Samples) -> NDArray[np.int64]:
    """Return ``fold_N``, 0 to `FOLDS` − 1: samples that share text are in one fold.

    Groups are dealt out in random order, each to the fold that is smallest so far. Where groups are
    not known, each sample is one.
    """
    group_N = validation.group_N
    if group_N is None:
        group_N = np.arange(len(validation))
    _, group_N, size_G = np.unique(group_N, return_inverse=True, return_counts=True)
    fold_G = np.zeros(len(size_G), np.int64)
    filled = np.zeros(FOLDS, np.int64)
    for group in np.random.default_rng(0).permutation(len(size_G)):
        fold_G[group] = filled.argmin()
        filled[fold_G[group]] += size_G[group]
    fold_N: NDArray[np.int64] = fold_G[group_N]
    return fold_N


def standard_error(loss_N: NDArray[np.float64], group_N: NDArray[np.int64] | None) -> float:
    """Standard error of the mean loss; samples of one group count as one draw (cluster-robust)."""
    away_N = loss_N - loss_N.mean()
    if group_N is not None:
        _, group_N = np.unique(group_N, return_inverse=True)
        away_N = np.bincount(group_N, away_N)
    return float(np.sqrt((away_N**2).sum())) / len(loss_N)


class CrossFitted:
    """Cascade routing on the validation part, cross-fitted fold by fold."""

    def __init__(self, exit0: tuple[Floats, Floats], validation: Samples, pools: Pools) -> None:
        if len(validation) < 20 * FOLDS:
            raise InvalidInput(
                f"data: {len(validation)} validation examples are too few for correctness heads; "
                f"{20 * FOLDS} at least"
            )
        self._validation, self._pools = validation, pools
        fold_N = folds_of(validation)
        if len(set(fold_N.tolist())) < FOLDS:
            raise InvalidInput(
                f"data: the validation examples make fewer than {FOLDS} groups, because they share "
                "text; give more data"
            )
        self._rows = [np.flatnonzero(fold_N == fold) for fold in range(FOLDS)]
        self._parts = [validation.take(rows) for rows in self._rows]
        rest = [validation.take(np.flatnonzero(fold_N != fold)) for fold in range(FOLDS)]
        self._sweeps: dict[tuple[float, Reads], list[CascadeSweep]] = {}
        for reads, alphas in ALPHAS.items():
            for alpha in sorted({pools.alpha, *alphas}):
                there = at_alpha(pools, alpha)
                self._sweeps[alpha, reads] = [
                    CascadeSweep(fit_heads(exit0, others, there, reads), part, there)
                    for others, part in zip(rest, self._parts, strict=True)
                ]
        self._swept: dict[tuple[CostModel, Part], list[tuple[float, float, Setting]]] = {}

    def run(
        self, setting: Setting, cost_model: CostModel, part: Part = "both"
    ) -> dict[str, NDArray[Any]]:
        """Return ``right`` and ``cost`` of each answer, at this setting and these prices."""
        right_N = np.zeros(len(self._validation), bool)
        cost_N = np.zeros(len(self._validation))
        sweeps = self._sweeps[setting.alpha, setting.reads]
        folds = zip(self._rows, self._parts, sweeps, strict=True)
        for rows, samples, sweep in folds:
            trace = sweep.run(setting.price, cost_model, part)
            right_N[rows] = trace.answer_N == samples.labels_N
            cost_N[rows] = trace.cost_N
        return {"right": right_N, "cost": cost_N}

    def choose(
        self, accuracy: float, cost_model: CostModel | None = None, part: Part = "both"
    ) -> Setting:
        """The setting of least mean cost among those whose accuracy is at least ``accuracy``.

        Where none is, the most accurate.
        """
        model = cost_model or self._pools.cost_model
        if (model, part) not in self._swept:
            runs = [(self.run(setting, model, part), setting) for setting in self._settings]
            self._swept[model, part] = [
                (float(run["cost"].mean()), float(run["right"].mean()), setting)
                for run, setting in runs
            ]
        fit = [
            (cost, setting)
            for cost, right, setting in self._swept[model, part]
            if right >= accuracy
        ]
        if fit:
            return min(fit)[1]
        return max(self._swept[model, part], key=lambda row: (row[1], -row[0]))[2]

    def choose_by(self, promise: Promise) -> Kept:
        """The setting of least mean cost among those that keep ``promise``.

        Heads that read the text are preferred within `PREFERENCE`: they choose a tier for each text
        before any layer runs.
        """
        cloud_N = self._validation.answers_NE[:, -1] == self._validation.labels_N
        model = self._pools.cost_model
        found = []
        for setting in self._settings:
            run = self.run(setting, model)
            loss_N = 100.0 * (cloud_N.astype(float) - run["right"])
            change = 100 * (float(run["cost"].mean()) / model.all_cloud - 1)
            found.append(Kept.of(setting, loss_N, self._validation, change))
        return min(
            (one for one in found if one.keeps(promise)),
            key=lambda one: (
                one.cost_change + (0.0 if one.setting.reads == "text" else PREFERENCE),
                one.setting,
            ),
        )

    @property
    def _settings(self) -> list[Setting]:
        return [Setting(price, *known) for known in self._sweeps for price in PRICES]


def all_cloud_accuracy(samples: Samples) -> float:
    """Share that the last layer gets right."""
    return float(np.mean(samples.answers_NE[:, -1] == samples.labels_N))


@dataclass(frozen=True)
class Promise:
    """Condition on a setting on validation: a drop against all-cloud, with a margin.

    The mean drop plus ``standard_errors`` of it may be ``max_drop`` points at most; with
    ``longer_half`` also on the longer half of the texts by itself. Held-out texts may be shorter
    than those in service: SST-2's training file holds phrases, and long texts lose more.
    """

    max_drop: float = 0.0
    standard_errors: float = 0.0
    longer_half: bool = False


SHIPPED = Promise(max_drop=0.3, standard_errors=1.0, longer_half=True)
"""Promise by which a bundle's default policy is chosen."""


@dataclass(frozen=True)
class Kept:
    """A setting on validation, cross-fitted: drops in points with their standard errors.

    ``cost_change`` is the mean cost against all-cloud in percent.
    """

    setting: Setting
    drop: float
    drop_error: float
    long_drop: float
    long_drop_error: float
    cost_change: float

    @classmethod
    def of(
        cls,
        setting: Setting,
        loss_N: NDArray[np.float64],
        samples: Samples,
        cost_change: float,
    ) -> Kept:
        """From the loss of each sample in points against all-cloud."""
        long_N = samples.tokens_N > np.median(samples.tokens_N)
        parts = []
        for part_N in (np.ones(len(samples), bool), long_N if long_N.any() else ~long_N):
            group_N = None if samples.group_N is None else samples.group_N[part_N]
            mean = float(loss_N[part_N].mean())
            parts.append((mean, standard_error(loss_N[part_N], group_N)))
        return cls(setting, *parts[0], *parts[1], cost_change)

    def keeps(self, promise: Promise) -> bool:
        """Return whether the setting keeps ``promise``."""
        worst = self.drop + promise.standard_errors * self.drop_error
        if promise.longer_half:
            worst = max(worst, self.long_drop + promise.standard_errors * self.long_drop_error)
        return worst <= promise.max_drop


def priced_heads(
    exit0: tuple[Floats, Floats], validation: Samples, pools: Pools, promise: Promise
) -> tuple[CorrectnessHeads, Kept]:
    """Heads fitted on all of validation, at the cheapest setting that keeps ``promise`` there.

    Settings are judged cross-fitted. At Λ = 0 all goes to the cloud, which keeps every promise.
    """
    kept = CrossFitted(exit0, validation, pools).choose_by(promise)
    setting = kept.setting
    heads = fit_heads(exit0, validation, at_alpha(pools, setting.alpha), setting.reads)
    return replace(heads, cost_weight=np.array(setting.price)), kept


def cascade_trace(heads: CorrectnessHeads, price: float, samples: Samples, pools: Pools) -> Trace:
    """``cascade-routing`` at this Λ and these pools' prices, by the policy that the mobile runs."""
    policy = CascadeRouting(heads, pools.cost_model, price)
    return simulate(policy, samples, pools.facts, pools.edge_layers)
