"""GLUE's metrics against scikit-learn, intervals against theory."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from lab.data.tasks import METRICS, TASKS
from lab.evaluate.metrics import METRIC_NAMES, accuracy, auroc, interval, metric_function, resamples

RNG = np.random.default_rng(5)
LABELS_N = RNG.integers(0, 2, 300)
ANSWERS_N = np.where(RNG.random(300) < 0.8, LABELS_N, 1 - LABELS_N)
ONE = np.ones((1, 300))


def test_metrics_equal_those_of_scikit_learn() -> None:
    matthews = 100 * matthews_corrcoef(LABELS_N, ANSWERS_N)
    assert metric_function("matthews")(LABELS_N, ANSWERS_N, ONE)[0] == pytest.approx(matthews)
    f1 = 100 * f1_score(LABELS_N, ANSWERS_N)
    assert metric_function("f1")(LABELS_N, ANSWERS_N, ONE)[0] == pytest.approx(f1)
    plain = 100 * np.mean(LABELS_N == ANSWERS_N)
    assert metric_function("accuracy")(LABELS_N, ANSWERS_N, ONE)[0] == pytest.approx(plain)


def test_glue_tasks_have_their_metrics() -> None:
    others = {task.name: task.metric for task in TASKS.values() if task.metric != "accuracy"}
    assert others == {"cola": "matthews", "mrpc": "f1", "qqp": "f1"}
    assert set(METRIC_NAMES) == set(METRICS)


@pytest.mark.parametrize("classes", [2, 3, 40])
def test_metrics_of_many_classes_equal_those_of_scikit_learn(classes: int) -> None:
    """Also in resamples, where some of the 40 classes are missing."""
    labels_N = RNG.integers(0, classes, 120)
    answers_N = np.where(RNG.random(120) < 0.7, labels_N, RNG.integers(0, classes, 120))
    weight_BN = resamples(120)[:5]
    rows = [np.repeat(np.arange(120), weight_N.astype(int)) for weight_N in weight_BN]
    for name, expected in (
        ("macro-f1", lambda *pair: f1_score(*pair, average="macro")),
        ("matthews", matthews_corrcoef),
    ):
        expected_B = [100 * expected(labels_N[row], answers_N[row]) for row in rows]
        found_B = metric_function(name)(labels_N, answers_N, weight_BN)
        assert found_B.tolist() == pytest.approx(expected_B)


def test_matthews_of_one_class_is_zero() -> None:
    assert metric_function("matthews")(LABELS_N, np.ones(300, int), ONE)[0] == 0


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
