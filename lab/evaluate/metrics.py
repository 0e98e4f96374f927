"""GLUE's metrics, bootstrap intervals and AUROC. Shape suffixes: N samples, B resamples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
RESAMPLES = 1000

METRIC_NAMES = {"cola": "Matthews", "mrpc": "F1", "qqp": "F1"}
"""GLUE's metric where it is not plain accuracy; the paper's 'Acc' there is evidently this."""


def resamples(count: int, seed: int = 0) -> Floats:
    """``weight_BN``: how often each sample is drawn in each bootstrap resample."""
    rng = np.random.default_rng(seed)
    drawn_BN = rng.integers(0, count, (RESAMPLES, count))
    return np.stack([np.bincount(row, minlength=count) for row in drawn_BN]).astype(np.float64)


def interval(values_B: Floats) -> list[float]:
    """The central 95 % of ``values_B``."""
    low, high = np.percentile(values_B, (2.5, 97.5))
    return [round(float(low), 4), round(float(high), 4)]


def glue_metric(task: str) -> Callable[[Labels, Labels, Floats], Floats]:
    """The task's metric in percent, as a function of (labels_N, answers_N, weight_BN)."""
    if task == "cola":
        return _matthews
    if task in ("mrpc", "qqp"):
        return _f1
    return accuracy


def accuracy(labels_N: Labels, answers_N: Labels, weight_BN: Floats) -> Floats:
    """Percent of the answers that are right, in each resample."""
    right_N = (labels_N == answers_N).astype(np.float64)
    share_B: Floats = 100 * (weight_BN @ right_N) / weight_BN.sum(1)
    return share_B


def _counts(labels_N: Labels, answers_N: Labels, weight_BN: Floats) -> list[Floats]:
    cells = [(1, 1), (0, 1), (1, 0), (0, 0)]
    members = [(labels_N == label) & (answers_N == answer) for label, answer in cells]
    return [weight_BN @ member_N.astype(np.float64) for member_N in members]


def _f1(labels_N: Labels, answers_N: Labels, weight_BN: Floats) -> Floats:
    """F1 of class 1; 0 where nothing is right."""
    hit, false, missed, _ = _counts(labels_N, answers_N, weight_BN)
    return 100 * 2 * hit / np.maximum(2 * hit + false + missed, 1e-12)


def _matthews(labels_N: Labels, answers_N: Labels, weight_BN: Floats) -> Floats:
    """Matthews correlation; 0 where all answers are of one class."""
    hit, false, missed, rest = _counts(labels_N, answers_N, weight_BN)
    sides = (hit + false) * (hit + missed) * (rest + false) * (rest + missed)
    return 100 * (hit * rest - false * missed) / np.sqrt(np.maximum(sides, 1e-12))


def mean_over(seeds: Sequence[Floats]) -> Floats:
    """The mean over seeds, resample by resample."""
    mean: Floats = np.mean(np.stack(list(seeds)), 0)
    return mean


def auroc(target_N: NDArray[np.bool_], score_N: Floats) -> float | None:
    """Area under the ROC curve; None where only one class is present."""
    if target_N.all() or not target_N.any():
        return None
    return round(float(roc_auc_score(target_N, score_N)), 4)
