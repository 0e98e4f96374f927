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
"""GLUE's metrics other than accuracy; the paper's 'Acc' of these tasks is evidently this metric."""


def resamples(count: int, seed: int = 0) -> Floats:
    """Return ``weight_BN``: the number of times that each bootstrap resample draws each sample."""
    rng = np.random.default_rng(seed)
    drawn_BN = rng.integers(0, count, (RESAMPLES, count))
    return np.stack([np.bincount(row, minlength=count) for row in drawn_BN]).astype(np.float64)


def interval(values_B: Floats) -> list[float]:
    """Return the central 95 % of ``values_B``."""
    low, high = np.percentile(values_B, (2.5, 97.5))
    return [round(float(low), 4), round(float(high), 4)]


def glue_metric(task: str) -> Callable[[Labels, Labels, Floats], Floats]:
    """Return the task's metric in percent, a function of (labels_N, answers_N, weight_BN)."""
    if task == "cola":
        return _matthews
    if task in ("mrpc", "qqp"):
        return _f1
    return accuracy


def accuracy(labels_N: Labels, answers_N: Labels, weight_BN: Floats) -> Floats:
    """Return the percent of right answers in each resample."""
    right_N = (labels_N == answers_N).astype(np.float64)
    share_B: Floats = 100 * (weight_BN @ right_N) / weight_BN.sum(1)
    return share_B


def _counts(labels_N: Labels, answers_N: Labels, weight_BN: Floats) -> list[Floats]:
    cells = [(1, 1), (0, 1), (1, 0), (0, 0)]
    members = [(labels_N == label) & (answers_N == answer) for label, answer in cells]
    return [weight_BN @ member_N.astype(np.float64) for member_N in members]


def _f1(labels_N: Labels, answers_N: Labels, weight_BN: Floats) -> Floats:
    """Return F1 of class 1; 0 if no answer is right."""
    hit, false, missed, _ = _counts(labels_N, answers_N, weight_BN)
    return 100 * 2 * hit / np.maximum(2 * hit + false + missed, 1e-12)


def _matthews(labels_N: Labels, answers_N: Labels, weight_BN: Floats) -> Floats:
    """Return the Matthews correlation; 0 if all answers are of one class."""
    hit, false, missed, rest = _counts(labels_N, answers_N, weight_BN)
    sides = (hit + false) * (hit + missed) * (rest + false) * (rest + missed)
    return 100 * (hit * rest - false * missed) / np.sqrt(np.maximum(sides, 1e-12))


def mean_over(seeds: Sequence[Floats]) -> Floats:
    """Return the mean over seeds for each resample."""
    mean: Floats = np.mean(np.stack(list(seeds)), 0)
    return mean


def auroc(target_N: NDArray[np.bool_], score_N: Floats) -> float | None:
    """Return the area under the ROC curve; None if only one class is present."""
    if target_N.all() or not target_N.any():
        return None
    return round(float(roc_auc_score(target_N, score_N)), 4)
