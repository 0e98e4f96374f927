"""Fit the correctness heads.

The embedding classifier is fitted on the training part, everything else on the validation part.

Shape suffixes: N samples, H hidden size, F features, K heads, T, U tiers, G facts of an answer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from lab.evaluate.pools import Pools
from lab.evaluate.samples import Samples
from lab.evaluate.simulate import Trace, simulate
from shared.bundle.correctness_heads import (
    ANSWER_FACTS,
    EXTRA,
    QUANTILES,
    TIERS,
    CorrectnessHeads,
    Floats,
    answer_facts,
    raw_features,
)
from shared.domain import Tier
from shared.policies.static import SingleTier

HeadInputs = Literal["text", "answers"]
RIDGE = 0.01
"""Inverse regularisation of heads of the embedding, chosen on validation."""
PAIR_RIDGE = 0.1
"""Inverse regularisation of heads of pair features: 21 features instead of hundreds."""
CONFIDENCE_FACTS = 3
"""Number of an answer's facts, from the first, that hold the constant and its confidence."""
LEAD_RIDGE = 3.0
"""Ridge penalty per example of the lead over the cloud, a small difference with much noise."""


def fit_embedding_classifier(
    embedding_NH: NDArray[np.float32], labels_N: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """Fit the embedding classifier, a logistic regression on the mean word embedding.

    Returns ``weight_HC`` and ``bias_C``.
    """
    scaler = StandardScaler().fit(embedding_NH)
    model = LogisticRegression(C=0.1, max_iter=300).fit(scaler.transform(embedding_NH), labels_N)
    weight_CH, bias_C = model.coef_, model.intercept_
    if len(weight_CH) == 1:  # two classes: scikit-learn's one row is the difference of two
        weight_CH, bias_C = np.vstack([-weight_CH, weight_CH]) / 2, np.array([-1, 1]) * bias_C / 2
    weight_HC = (weight_CH / scaler.scale_).T
    return weight_HC, bias_C - scaler.mean_ @ weight_HC


def fit_heads(
    embedding_classifier: tuple[Floats, Floats],
    validation: Samples,
    pools: Pools,
    reads: HeadInputs = "text",
) -> CorrectnessHeads:
    """Fit all correctness heads; Λ is 0 (`lab.evaluate.choose_lambda` chooses it).

    With ``reads`` "answers" they use the confidence of answers alone, so that every text starts at
    the same tier. They have fewer parameters, and are better with few examples or where the text
    reveals little of its difficulty.
    """
    runs = [
        simulate(SingleTier(tier), validation, pools.facts, pools.edge_layers) for tier in TIERS
    ]
    features_NF, label0_N = features_of(embedding_classifier, validation)
    right_NT = np.stack([run.answer_N == validation.labels_N for run in runs], 1)
    confident_NT = np.stack([_meets_threshold(validation, run, pools) for run in runs], 1)
    mean_F, scale_F = np.nanmean(features_NF, 0), np.nanstd(features_NF, 0) + 1e-9
    columns = [right_NT[:, t] for t in range(3)] + [confident_NT[:, t] for t in range(2)]
    x_NF = np.nan_to_num((features_NF - mean_F) / scale_F, nan=0.0)
    if reads == "answers":
        x_NF = np.zeros_like(x_NF)
    ridge = RIDGE if validation.pair_NP is None else PAIR_RIDGE
    fitted = [_logistic(x_NF, column, ridge) for column in columns]
    lead_NT = right_NT.astype(float) - right_NT[:, 2:].astype(float)
    lead = Ridge(alpha=LEAD_RIDGE * len(x_NF)).fit(x_NF, lead_NT)
    facts_TNG = np.stack([answers_of(validation, run, features_NF, label0_N) for run in runs])
    if reads == "answers":
        facts_TNG[..., CONFIDENCE_FACTS:] = 0.0
    next_TT2 = np.array(
        [[_shares(right_NT[:, u], confident_NT[:, t]) for u in range(3)] for t in range(3)]
    )
    gain_TUG = np.zeros((3, 3, ANSWER_FACTS))
    for t in range(3):
        for u in range(t + 1, 3):
            gain_TUG[t, u] = _with_bias(facts_TNG[t], right_NT[:, u])
    heads = CorrectnessHeads(
        exit0_HC=embedding_classifier[0],
        exit0_C=embedding_classifier[1],
        mean_F=mean_F,
        scale_F=scale_F,
        weight_FK=np.stack([weight for weight, _ in fitted], 1),
        bias_K=np.array([bias for _, bias in fitted]),
        layers_T2=np.array([_shares(run.exit_N, confident_NT[:, t]) for t, run in enumerate(runs)]),
        right_T2=np.array([_shares(right_NT[:, t], confident_NT[:, t]) for t in range(3)]),
        next_TT2=next_TT2,
        this_TG=np.stack([_with_bias(facts_TNG[t], right_NT[:, t]) for t in range(3)]),
        gain_TUG=gain_TUG,
        diff_FT=lead.coef_.T,
        diff_T=lead.intercept_,
        gains_TSQU=np.zeros((3, 2, QUANTILES, 3)),
        alpha=np.array(pools.alpha),
        cost_weight=np.array(0.0),
    )
    return replace(heads, gains_TSQU=_typical_gains(heads, facts_TNG, confident_NT))


def _typical_gains(
    heads: CorrectnessHeads, facts_TNG: Floats, confident_NT: NDArray[np.bool_]
) -> Floats:
    """Return ``gains_TSQU``: means of `QUANTILES` equal parts of the answers, ordered by gain."""
    gains_TSQU = np.zeros((3, 2, QUANTILES, 3))
    for t in range(2):
        gain_NU = np.stack([heads.gains(t, u, facts_TNG[t]) for u in range(3)], 1)
        gain_NU[:, : t + 1] = 0.0
        order_N = np.argsort(gain_NU[:, 2], kind="stable")
        for s, mask_N in enumerate((confident_NT[:, t], ~confident_NT[:, t])):
            rows_N = order_N[mask_N[order_N]] if mask_N.any() else order_N
            for q, part in enumerate(np.array_split(rows_N, QUANTILES)):
                # an empty part, with fewer answers than parts, has the last answer
                gains_TSQU[t, s, q] = gain_NU[part if len(part) else rows_N[-1:]].mean(0)
    return gains_TSQU


def features_of(
    embedding_classifier: tuple[Floats, Floats], samples: Samples
) -> tuple[Floats, NDArray[np.int64]]:
    """Return ``features_NF`` and the embedding classifier's labels, by the mobile's function."""
    rows = [
        raw_features(
            *embedding_classifier,
            samples.embedding_NH[i],
            int(samples.tokens_N[i]),
            int(samples.rare_N[i]),
            None if samples.pair_NP is None else samples.pair_NP[i],
        )
        for i in range(len(samples))
    ]
    return np.stack([row for row, _ in rows]), np.array([label for _, label in rows])


def _meets_threshold(samples: Samples, run: Trace, pools: Pools) -> NDArray[np.bool_]:
    confidence_N = samples.confidence_NE[np.arange(len(samples)), run.exit_N - 1]
    if run.tier_N[0] is Tier.CLOUD:
        return np.full(len(samples), True)
    return confidence_N >= np.float32(pools.alpha)


def answers_of(
    samples: Samples, run: Trace, features_NF: Floats, label0_N: NDArray[np.int64]
) -> Floats:
    """Return ``facts_NG`` of the answers of one tier, by the mobile's function."""
    confidence_N = samples.confidence_NE[np.arange(len(samples)), run.exit_N - 1]
    return np.stack(
        [
            answer_facts(
                float(confidence_N[i]),
                bool(run.answer_N[i] == label0_N[i]),
                float(features_NF[i, -EXTRA]),
                float(features_NF[i, -EXTRA + 3]),
            )
            for i in range(len(samples))
        ]
    )


def _shares(value_N: NDArray[Any], confident_N: NDArray[np.bool_]) -> list[float]:
    """Return the means where confident and where not; of an empty part, the other mean."""
    masks = [mask if mask.any() else ~mask for mask in (confident_N, ~confident_N)]
    return [float(value_N[mask].mean()) for mask in masks]


def _logistic(x_NF: Floats, y_N: NDArray[np.bool_], ridge: float) -> tuple[Floats, float]:
    if y_N.all() or not y_N.any():
        return np.zeros(x_NF.shape[1]), 30.0 if y_N.all() else -30.0
    model = LogisticRegression(C=ridge, max_iter=500).fit(x_NF, y_N)
    return model.coef_[0], float(model.intercept_[0])


def _with_bias(facts_NG: Floats, y_N: NDArray[np.bool_]) -> Floats:
    """Return a logistic regression with its bias as the weight of the constant fact."""
    weight, bias = _logistic(facts_NG[:, 1:], y_N, 1.0)
    return np.concatenate([[bias], weight])
