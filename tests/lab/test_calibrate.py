"""Calibration: of 1,000 certificates with known truth, at most a share δ are wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from lab.certify.calibrate import (
    Candidates,
    Choice,
    LossTable,
    choose,
    order_settings,
    samples_needed,
    split_rows,
    tier_bounds,
)
from shared.certificates.sequential_test import DISAGREEMENT, DROP, binomial_tail, certifies

REPETITIONS = 1000
DELTA = 0.05
LIMIT = DELTA + 3 * math.sqrt(DELTA * (1 - DELTA) / REPETITIONS)
ALL_CLOUD = 12.0


def costs(settings: int, count: int) -> Any:
    """Return costs that fall from setting to setting."""
    return np.repeat(np.linspace(9, 2, settings)[:, None], count, 1)


def table(rng: np.random.Generator, harm_S: Any, gain_S: Any, count: int, accuracy: bool) -> Any:
    """Return settings with these rates of harmful and gaining answers, one draw for a sample."""
    draw_N = rng.random(count)
    harm_SN = (draw_N < np.asarray(harm_S)[:, None]).astype(float)
    gain_SN = (draw_N > 1 - np.asarray(gain_S)[:, None]).astype(float)
    losses = (LossTable(DISAGREEMENT, harm_SN + gain_SN),)
    if accuracy:
        losses = (LossTable(DROP, harm_SN - gain_SN), LossTable(DISAGREEMENT, harm_SN))
    return Candidates(losses, costs(len(harm_SN), count), ALL_CLOUD)


HARMS = {
    "all just above": np.array([0.0201, 0.0202, 0.0203, 0.0204]),
    "from safe to harmful": np.array([0.001, 0.004, 0.012, 0.0205, 0.03, 0.06]),
    "no order": np.array([0.03, 0.002, 0.021, 0.0202, 0.004, 0.025]),
}


@pytest.mark.parametrize("accuracy", [False, True], ids=["consistency", "accuracy"])
@pytest.mark.parametrize("case", HARMS)
def test_at_most_delta_of_1000_certificates_are_wrong(case: str, accuracy: bool) -> None:
    """A limit of 2 % at n = 400 + 400, with known rates of wrong answers."""
    harm_S = HARMS[case]
    gain_S = np.full(len(harm_S), 0.01 if accuracy else 0.0)
    truth_S = harm_S - gain_S if accuracy else harm_S + gain_S
    max_drop = 0.01 if accuracy else 0.02
    rng = np.random.default_rng(21)
    wrong = certified = 0
    for repetition in range(REPETITIONS):
        candidates = table(rng, harm_S, gain_S, 800, accuracy)
        choice = choose(candidates, *split_rows(800, repetition), max_drop, DELTA)
        if choice.setting is not None:
            certified += 1
            wrong += truth_S[choice.setting] > max_drop
    assert wrong / REPETITIONS <= LIMIT
    if case != "all just above" and not accuracy:
        assert certified > REPETITIONS / 4


def test_bounds_of_all_tiers_hold_at_once() -> None:
    """1,000 calibrations with known rates of different answers on two tiers."""
    rate = {"mobile": 0.03, "edge": 0.01}
    rng = np.random.default_rng(22)
    wrong = 0
    for repetition in range(REPETITIONS):
        tier_SN = np.where(rng.random((3, 600)) < 0.4, "mobile", "edge")
        rate_SN = np.where(tier_SN == "mobile", rate["mobile"], rate["edge"])
        losses = LossTable(DISAGREEMENT, (rng.random((3, 600)) < rate_SN).astype(float))
        candidates = Candidates((losses,), costs(3, 600), ALL_CLOUD)
        ordering_rows, test_rows = split_rows(600, repetition)
        choice = choose(candidates, ordering_rows, test_rows, 0.05, DELTA)
        if choice.setting is not None:
            bounds = tier_bounds(
                candidates, choice, tier_SN[choice.setting], test_rows, DELTA, rate
            )
            assert sum(count for count, _ in bounds.values()) == len(test_rows)
            wrong += any(bound < rate[tier] for tier, (_, bound) in bounds.items())
    assert wrong / REPETITIONS <= LIMIT


def candidates_with_errors(
    errors: list[int], test_errors: list[int]
) -> tuple[Candidates, Any, Any]:
    """Return 200 samples to order and 200 to test, with these numbers of errors by setting."""
    loss_SN = np.zeros((len(errors), 400))
    for setting, (first, second) in enumerate(zip(errors, test_errors, strict=True)):
        loss_SN[setting, :first] = 1
        loss_SN[setting, 200 : 200 + second] = 1
    candidates = Candidates((LossTable(DISAGREEMENT, loss_SN),), costs(len(errors), 400), ALL_CLOUD)
    return candidates, np.arange(200), np.arange(200, 400)


def choice_for(test_errors: list[int]) -> Choice:
    """Return the choice among five ordered settings; 4 errors of 200 pass at 5 %."""
    return choose(*candidates_with_errors([0, 1, 2, 3, 4], test_errors), 0.05, 0.05)


def test_four_errors_of_200_pass_and_five_fail() -> None:
    assert binomial_tail(4, 200, 0.05) <= 0.05 < binomial_tail(5, 200, 0.05)


@pytest.mark.parametrize(
    ("test_errors", "last"),
    [
        ([0, 0, 0, 0, 0], 4),
        ([4, 4, 4, 4, 5], 3),
        ([0, 4, 4, 5, 5], 2),
        ([0, 0, 4, 5, 0], 2),  # settings after a failure are not tested
        ([4, 5, 0, 0, 0], 0),
        ([5, 0, 0, 0, 0], None),
    ],
)
def test_last_setting_that_passed_is_chosen(test_errors: list[int], last: int | None) -> None:
    choice = choice_for(test_errors)
    assert choice.setting == last
    assert choice.passed == (0 if last is None else last + 1)
    assert choice.settings == [0, 1, 2, 3, 4]


def test_order_does_not_depend_on_the_test_half() -> None:
    assert choice_for([9, 0, 9, 0, 9]).settings == choice_for([0, 0, 0, 0, 0]).settings


def test_settings_are_ordered_from_safe_to_cheap() -> None:
    loss_SN = np.zeros((6, 100))
    for setting, errors in enumerate([0, 0, 2, 1, 3, 0]):
        loss_SN[setting, :errors] = 1
    cost_S = np.array([8.0, 6.0, 5.0, 5.5, 5.2, 12.0])
    candidates = Candidates(
        (LossTable(DISAGREEMENT, loss_SN),), np.repeat(cost_S[:, None], 100, 1), ALL_CLOUD
    )
    # setting 5 is all-cloud itself; 4 is no cheaper than 2, which is safer
    assert order_settings(candidates, np.arange(100)) == [0, 1, 3, 2]


def test_settings_with_nearly_equal_costs_are_left_out() -> None:
    loss_SN = np.zeros((3, 100))
    cost_S = np.array([8.0, 7.95, 7.5])
    candidates = Candidates(
        (LossTable(DISAGREEMENT, loss_SN),), np.repeat(cost_S[:, None], 100, 1), ALL_CLOUD
    )
    assert order_settings(candidates, np.arange(100)) == [0, 2]


def test_tighter_bound_of_the_drop_is_used() -> None:
    """With few errors the exact bound of harm, with many the sequential test of the drop."""
    few = table(np.random.default_rng(1), [0.002], [0.0], 800, accuracy=True)
    many = table(np.random.default_rng(1), [0.1], [0.1], 8000, accuracy=True)
    assert choose(few, *split_rows(800), 0.02, DELTA).loss_indices == [1]
    assert choose(many, *split_rows(8000), 0.02, DELTA).loss_indices == [0]


def test_split_rows_is_a_random_partition() -> None:
    ordering_rows, test_rows = split_rows(873)
    assert sorted([*ordering_rows, *test_rows]) == list(range(873))
    assert (len(ordering_rows), len(test_rows)) == (436, 437)
    assert 150 < np.sum(ordering_rows < 436) < 290
    np.testing.assert_array_equal(ordering_rows, split_rows(873)[0])


def test_samples_needed_without_errors_is_exact() -> None:
    assert samples_needed(np.zeros(436), 0.005, 0.05, DISAGREEMENT) == 598
    assert 0.995**598 <= 0.05 < 0.995**597


def test_samples_needed_certify_four_of_five_draws() -> None:
    losses_N = np.zeros(400)
    losses_N[:2] = 1
    count = samples_needed(losses_N, 0.01, 0.05, DISAGREEMENT)
    assert count is not None
    rng = np.random.default_rng(5)
    certified = [certifies(rng.random(count) < 0.005, 0.01, 0.05, DISAGREEMENT) for _ in range(400)]
    assert 0.65 < np.mean(certified) < 0.95


def test_no_number_of_samples_certifies_a_loss_above_the_limit() -> None:
    losses_N = np.zeros(400)
    losses_N[:8] = 1
    assert samples_needed(losses_N, 0.02, 0.05, DISAGREEMENT) is None
    assert samples_needed(losses_N, 0.0201, 0.05, DISAGREEMENT) is None


def test_tier_without_answers_has_the_bound_one() -> None:
    candidates = Candidates(
        (LossTable(DISAGREEMENT, np.zeros((1, 100))),), costs(1, 100), ALL_CLOUD
    )
    choice = Choice([0], [0], 1)
    tier_N = np.full(100, "edge")
    bounds = tier_bounds(candidates, choice, tier_N, np.arange(100), 0.05, ("mobile", "edge"))
    assert bounds["mobile"] == (0, 1.0)
    assert bounds["edge"] == (100, pytest.approx(1 - 0.025 ** (1 / 100)))
