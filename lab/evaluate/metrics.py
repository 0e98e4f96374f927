"""Metrics of the tasks, bootstrap intervals and AUROC. Shape suffixes: N samples, B resamples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
RESAMPLES = 1000

METRIC_NAMES = {
    "accuracy": "accuracy", "f1": "F1", "matthews": "Matthews", "macro-f1": "macro-F1",
}  # fmt: skip
"""Names of the metrics in results and on pages, by `lab.data.tasks.Task.metric`. The paper's 'Acc'
of CoLA, MRPC and QQP is evidently GLUE's metric of these tasks."""


def resamples(count: int, seed: int = 0) -> Floats:
    """Return ``weight_BN``: the number of times that each bootstrap resample draws each sample."""
    rng = np.random.default_rng(seed)
    drawn_BN = rng.integers(0, count, (RESAMPLES, count))
    return np.stack([np.bincount(row, minlength=count) for row in drawn_BN]).astype(np.float64)


def interval(values_B: Floats) -> list[float]:
    """Return the central 95 % of ``values_B``."""
    low, high = np.percentile(values_B, (2.5, 97.5))
    return [round(float(low), 4), round(float(high), 4)]


def metric_function(metric: str) -> Callable[[Labels, Labels, Floats], Floats]:
    """Return a task's metric in percent, a function of (labels_N, answers_N, weight_BN)."""
    functions = {"accuracy": accuracy, "f1": _f1, "matthews": _matthews, "macro-f1": _macro_f1}
    return functions[metric]


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


def _macro_f1(labels_N: Labels, answers_N: Labels, weight_BN: Floats) -> Floats:
    """Return the mean of the F1 of every class that is a label or an answer in the resample."""
    sum_B: Floats = np.zeros(len(weight_BN))
    classes_B = np.zeros(len(weight_BN))
    for label_B, answer_B, hit_B in _class_weights(labels_N, answers_N, weight_BN):
        present_B = label_B + answer_B
        sum_B += 2 * hit_B / np.maximum(present_B, 1e-12)
        classes_B += present_B > 0
    return 100 * sum_B / np.maximum(classes_B, 1)


def _matthews(labels_N: Labels, answers_N: Labels, weight_BN: Floats) -> Floats:
    """Return the Matthews correlation; 0 if all answers are of one class."""
    if max(labels_N.max(), answers_N.max()) > 1:
        return _matthews_of_many(labels_N, answers_N, weight_BN)
    hit, false, missed, rest = _counts(labels_N, answers_N, weight_BN)
    sides = (hit + false) * (hit + missed) * (rest + false) * (rest + missed)
    return 100 * (hit * rest - false * missed) / np.sqrt(np.maximum(sides, 1e-12))


def _matthews_of_many(labels_N: Labels, answers_N: Labels, weight_BN: Floats) -> Floats:
    """Return the Matthews correlation of more than two classes (Gorodkin 2004)."""
    count_B = weight_BN.sum(1)
    zeros = np.zeros_like(count_B)
    right_B, both_B, labels_B, answers_B = zeros, zeros, zeros, zeros
    for label_B, answer_B, hit_B in _class_weights(labels_N, answers_N, weight_BN):
        right_B = right_B + hit_B
        both_B = both_B + label_B * answer_B
        labels_B, answers_B = labels_B + label_B**2, answers_B + answer_B**2
    sides_B = (count_B**2 - labels_B) * (count_B**2 - answers_B)
    correlation_B: Floats = (right_B * count_B - both_B) / np.sqrt(np.maximum(sides_B, 1e-12))
    return 100 * correlation_B


def _class_weights(
    labels_N: Labels, answers_N: Labels, weight_BN: Floats
) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Yield for each class how often it is the label, the answer, and both, in each resample."""
    for name in np.union1d(labels_N, answers_N):
        is_label_N, is_answer_N = labels_N == name, answers_N == name
        members = (is_label_N, is_answer_N, is_label_N & is_answer_N)
        label_B, answer_B, hit_B = (weight_BN @ part.astype(np.float64) for part in members)
        yield label_B, answer_B, hit_B


def mean_over(seeds: Sequence[Floats]) -> Floats:
    """Return the mean over seeds for each resample."""
    mean: Floats = np.mean(np.stack(list(seeds)), 0)
    return mean


def auroc(target_N: NDArray[np.bool_], score_N: Floats) -> float | None:
    """Return the area under the ROC curve; None if only one class is present."""
    if target_N.all() or not target_N.any():
        return None
    return round(float(roc_auc_score(target_N, score_N)), 4)
