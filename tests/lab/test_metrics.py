"""GLUE's metrics against scikit-learn, intervals against theory."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from lab.evaluate.metrics import accuracy, auroc, glue_metric, interval, resamples

RNG = np.random.default_rng(5)
LABELS_N = RNG.integers(0, 2, 300)
ANSWERS_N = np.where(RNG.random(300) < 0.8, LABELS_N, 1 - LABELS_N)
ONE = np.ones((1, 300))


def test_metrics_equal_those_of_scikit_learn() -> None:
    matthews = 100 * matthews_corrcoef(LABELS_N, ANSWERS_N)
    assert glue_metric("cola")(LABELS_N, ANSWERS_N, ONE)[0] == pytest.approx(matthews)
    f1 = 100 * f1_score(LABELS_N, ANSWERS_N)
    for task in ("mrpc", "qqp"):
        assert glue_metric(task)(LABELS_N, ANSWERS_N, ONE)[0] == pytest.approx(f1)
    plain = 100 * np.mean(LABELS_N == ANSWERS_N)
    for task in ("sst2", "qnli", "mnli"):
        assert glue_metric(task)(LABELS_N, ANSWERS_N, ONE)[0] == pytest.approx(plain)


def test_matthews_of_one_class_is_zero() -> None:
    assert glue_metric("cola")(LABELS_N, np.ones(300, int), ONE)[0] == 0


def test_weight_repeats_a_sample() -> None:
    weight = np.array([[2.0, 0.0, 1.0]])
    labels, answers = np.array([1, 0, 1]), np.array([1, 1, 0])
    assert accuracy(labels, answers, weight)[0] == pytest.approx(200 / 3)


def test_interval_is_that_of_a_binomial() -> None:
    """±1.96 standard errors of the share, within a tenth of the width."""
    low, high = interval(accuracy(LABELS_N, ANSWERS_N, resamples(300)))
    share = np.mean(LABELS_N == ANSWERS_N)
    error = 100 * 1.96 * np.sqrt(share * (1 - share) / 300)
    assert high - low == pytest.approx(2 * error, rel=0.1)
    assert resamples(300).sum(1).tolist() == [300.0] * 1000


def test_auroc_by_hand() -> None:
    assert auroc(np.array([True, False, True]), np.array([3.0, 2.0, 1.0])) == 0.5
    assert auroc(np.array([True, True]), np.array([1.0, 2.0])) is None
