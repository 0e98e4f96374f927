"""Choose Λ, the price of one λ in probability, on the validation part by cross-fitting."""

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
from lab.evaluate.fit_heads import HeadInputs, fit_embedding_classifier, fit_heads
from lab.evaluate.pools import Pools, with_alpha
from lab.evaluate.samples import Samples
from lab.evaluate.simulate import Trace, simulate
from lab.models.embedding_tables import mean_embeddings
from lab.models.run import Run
from shared.bundle.correctness_heads import MIN_HEAD_EXAMPLES, CorrectnessHeads, Floats
from shared.errors import InvalidInput
from shared.inference.tokenizer import TextEncoder
from shared.policies.cascade_routing import CascadeRouting
from shared.pricing.cost_model import CostModel

PRICES = (
    *(0.0, 0.00002, 0.00005, 0.0001),
    *(round(float(price), 6) for price in np.geomspace(0.0002, 0.06, 16)),
)
"""Candidates for Λ; at 0 the cloud answers everything."""
TEXT_ALPHAS = (0.95, 0.98, 0.99, 0.995)
ALPHAS: dict[HeadInputs, tuple[float, ...]] = {
    "text": TEXT_ALPHAS,
    "answers": (0.8, 0.9, *TEXT_ALPHAS),
}
"""Candidates for α in addition to the paper's. Heads that read the text have fewer: with
more settings, the best one on validation is more often the best by chance."""
PREFERENCE = 5.0
"""Percent of all-cloud that heads of answers alone must save beyond the others to be chosen."""
FOLDS = 5


def embedding_classifier_of_run(run: Run, train: Sequence[Example]) -> tuple[Floats, Floats]:
    """Return the embedding classifier of a run's training part.

    It is cached in the run for an equal model and equal data.
    """
    key = hashlib.sha256(f"1 {data_hash(train)} {run.model_hash()}".encode()).hexdigest()[:16]
    file = run.folder / "outputs" / f"exit0-{key}.safetensors"
    if not file.is_file():
        encoder = TextEncoder(run.tokenizer_file, run.facts["max_tokens"])
        rows = [encoder.encode(row.text, row.pair) for row in train]
        labels_N = np.array([row.label for row in train])
        weight_HC, bias_C = fit_embedding_classifier(mean_embeddings(run.model, rows), labels_N)
        file.parent.mkdir(exist_ok=True)
        save_file({"weight": np.ascontiguousarray(weight_HC), "bias": bias_C}, file)
    cached = load_file(file)
    return cached["weight"], cached["bias"]


@dataclass(frozen=True, order=True)
class Setting:
    """Setting chosen on the validation part: Λ, α of the exits, and the input of the heads."""

    price: float
    alpha: float
    reads: HeadInputs = "text"


def assign_folds(validation: Samples) -> NDArray[np.int64]:
    """Return ``fold_N``, 0 to `FOLDS` − 1: samples that share text are in one fold.

    Groups are assigned in random order, each to the smallest fold so far. Without known groups
    each sample is its own group.
    """
    group_N = validation.group_N
    if group_N is None:
        group_N = np.arange(len(validation))
    _, group_N, size_G = np.unique(group_N, return_inverse=True, return_counts=True)
    fold_G = np.zeros(len(size_G), np.int64)
    fold_sizes = np.zeros(FOLDS, np.int64)
    for group in np.random.default_rng(0).permutation(len(size_G)):
        fold_G[group] = fold_sizes.argmin()
        fold_sizes[fold_G[group]] += size_G[group]
    fold_N: NDArray[np.int64] = fold_G[group_N]
    return fold_N


def standard_error(loss_N: NDArray[np.float64], group_N: NDArray[np.int64] | None) -> float:
    """Return the cluster-robust standard error of the mean loss: each group is one draw."""
    deviation_N = loss_N - loss_N.mean()
    if group_N is not None:
        _, group_N = np.unique(group_N, return_inverse=True)
        deviation_N = np.bincount(group_N, deviation_N)
    return float(np.sqrt((deviation_N**2).sum())) / len(loss_N)


class TooFewExamples(InvalidInput):
    """The validation part is too small for correctness heads.

    ``reason`` says why, ``remedy`` what to do, each without a full stop.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"data: {reason}; {remedy}", field="data")
        self.reason = reason
        self.remedy = remedy


class CrossFitted:
    """Cascade routing on the validation part: each fold has heads fitted on the other folds."""

    def __init__(
        self, embedding_classifier: tuple[Floats, Floats], validation: Samples, pools: Pools
    ) -> None:
        if len(validation) < MIN_HEAD_EXAMPLES:
            raise TooFewExamples(
                f"{len(validation)} validation examples are too few for the correctness heads of "
                f"{CascadeRouting.name}",
                f"give at least {MIN_HEAD_EXAMPLES} validation examples, in a file of their own or "
                f"as a tenth of {10 * MIN_HEAD_EXAMPLES:,} rows",
            )
        self._validation, self._pools = validation, pools
        fold_N = assign_folds(validation)
        if len(set(fold_N.tolist())) < FOLDS:
            raise TooFewExamples(
                f"the validation examples share so much text that they form fewer than {FOLDS} "
                f"groups, too few for the correctness heads of {CascadeRouting.name}",
                "give data with more different texts",
            )
        self._rows = [np.flatnonzero(fold_N == fold) for fold in range(FOLDS)]
        self._parts = [validation.take(rows) for rows in self._rows]
        rest = [validation.take(np.flatnonzero(fold_N != fold)) for fold in range(FOLDS)]
        self._sweeps: dict[tuple[float, HeadInputs], list[CascadeSweep]] = {}
        for reads, alphas in ALPHAS.items():
            for alpha in sorted({pools.alpha, *alphas}):
                pools_at_alpha = with_alpha(pools, alpha)
                self._sweeps[alpha, reads] = [
                    CascadeSweep(
                        fit_heads(embedding_classifier, others, pools_at_alpha, reads),
                        part,
                        pools_at_alpha,
                    )
                    for others, part in zip(rest, self._parts, strict=True)
                ]
        self._swept: dict[tuple[CostModel, Part], list[tuple[float, float, Setting]]] = {}

    def run(
        self, setting: Setting, cost_model: CostModel, part: Part = "both"
    ) -> dict[str, NDArray[Any]]:
        """Return ``right`` and ``cost`` (λ) of each answer, at this setting and these prices."""
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
        """Return the setting of least mean cost with at least this ``accuracy`` (0 to 1).

        If there is none, return the most accurate.
        """
        model = cost_model or self._pools.cost_model
        if (model, part) not in self._swept:
            runs = [(self.run(setting, model, part), setting) for setting in self._settings]
            self._swept[model, part] = [
                (float(run["cost"].mean()), float(run["right"].mean()), setting)
                for run, setting in runs
            ]
        accurate_enough = [
            (cost, setting)
            for cost, right, setting in self._swept[model, part]
            if right >= accuracy
        ]
        if accurate_enough:
            return min(accurate_enough)[1]
        return max(self._swept[model, part], key=lambda row: (row[1], -row[0]))[2]

    def choose_within(self, limit: DropLimit) -> ValidatedSetting:
        """Return the setting of least mean cost within ``limit``.

        Heads that read the text are preferred within `PREFERENCE`: they choose a tier for each text
        before any layer runs.
        """
        cloud_N = self._validation.answers_NE[:, -1] == self._validation.labels_N
        model = self._pools.cost_model
        measured = []
        for setting in self._settings:
            run = self.run(setting, model)
            loss_N = 100.0 * (cloud_N.astype(float) - run["right"])
            change = 100 * (float(run["cost"].mean()) / model.all_cloud - 1)
            measured.append(ValidatedSetting.of(setting, loss_N, self._validation, change))
        return min(
            (candidate for candidate in measured if candidate.meets(limit)),
            key=lambda candidate: (
                candidate.cost_change + (0.0 if candidate.setting.reads == "text" else PREFERENCE),
                candidate.setting,
            ),
        )

    @property
    def _settings(self) -> list[Setting]:
        return [Setting(price, *key) for key in self._sweeps for price in PRICES]


def all_cloud_accuracy(samples: Samples) -> float:
    """Return the share of the last layer's answers that are right."""
    return float(np.mean(samples.answers_NE[:, -1] == samples.labels_N))


@dataclass(frozen=True)
class DropLimit:
    """Limit of the drop against all-cloud on validation.

    The mean drop plus ``standard_errors`` standard errors must be at most ``max_drop`` points; with
    ``longer_half`` also on the longer half of the texts. Held-out texts may be shorter than those
    in service: SST-2's training file holds phrases, and long texts lose more.
    """

    max_drop: float = 0.0
    standard_errors: float = 0.0
    longer_half: bool = False


DEFAULT_LIMIT = DropLimit(max_drop=0.3, standard_errors=1.0, longer_half=True)
"""Limit for the default policy of a bundle."""


@dataclass(frozen=True)
class ValidatedSetting:
    """A setting measured on validation: drops against all-cloud (points), their standard errors.

    ``long_drop`` is the drop on the longer half of the texts, ``cost_change`` the mean cost against
    all-cloud in percent.
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
    ) -> ValidatedSetting:
        """Return the measurement from the loss of each sample against all-cloud, in points."""
        long_N = samples.tokens_N > np.median(samples.tokens_N)
        parts = []
        for part_N in (np.ones(len(samples), bool), long_N if long_N.any() else ~long_N):
            group_N = None if samples.group_N is None else samples.group_N[part_N]
            mean = float(loss_N[part_N].mean())
            parts.append((mean, standard_error(loss_N[part_N], group_N)))
        return cls(setting, *parts[0], *parts[1], cost_change)

    def meets(self, limit: DropLimit) -> bool:
        """Return True if the drop is within ``limit``."""
        worst = self.drop + limit.standard_errors * self.drop_error
        if limit.longer_half:
            worst = max(worst, self.long_drop + limit.standard_errors * self.long_drop_error)
        return worst <= limit.max_drop


def fit_default_heads(
    embedding_classifier: tuple[Floats, Floats], validation: Samples, pools: Pools, limit: DropLimit
) -> tuple[CorrectnessHeads, ValidatedSetting]:
    """Return heads fitted on all of validation, at the cheapest setting within ``limit`` there.

    Settings are measured cross-fitted. At Λ = 0 the cloud answers everything, which meets every
    limit.
    """
    chosen = CrossFitted(embedding_classifier, validation, pools).choose_within(limit)
    setting = chosen.setting
    heads = fit_heads(
        embedding_classifier, validation, with_alpha(pools, setting.alpha), setting.reads
    )
    return replace(heads, cost_weight=np.array(setting.price)), chosen


def cascade_trace(heads: CorrectnessHeads, price: float, samples: Samples, pools: Pools) -> Trace:
    """Simulate the mobile's ``cascade-routing`` at this Λ and these pools' prices."""
    policy = CascadeRouting(heads, pools.cost_model, price)
    return simulate(policy, samples, pools.facts, pools.edge_layers)
