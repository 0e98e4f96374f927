"""Level of the bounds at finite n, and false alarm rate and delay of the alarm."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from shared.certificates.sequential_test import (
    DISAGREEMENT,
    DROP,
    Alarm,
    LossKind,
    binomial_tail,
    binomial_upper,
    certifies,
    upper_bound,
)
from shared.errors import InvalidInput

SHARES = LossKind(0.0, binary=False)
REPETITIONS = 1000


def largest_observed_rate(delta: float) -> float:
    """Return ``delta`` plus three standard deviations of a rate over `REPETITIONS` draws."""
    return delta + 3 * math.sqrt(delta * (1 - delta) / REPETITIONS)


@pytest.mark.parametrize("delta", [0.001, 0.05, 0.3])
@pytest.mark.parametrize(
    ("errors", "count"), [(0, 1), (0, 408), (1, 2), (1, 408), (7, 50), (49, 50), (300, 20_000)]
)
def test_binomial_upper_is_clopper_pearson(errors: int, count: int, delta: float) -> None:
    expected = float(beta.ppf(1 - delta, errors + 1, count - errors))
    assert binomial_upper(errors, count, delta) == pytest.approx(expected, rel=1e-6)
    assert binomial_tail(errors, count, expected) == pytest.approx(delta, rel=1e-6)


@given(st.integers(0, 300), st.integers(1, 300), st.floats(1e-6, 1 - 1e-6))
def test_binomial_tail_is_the_distribution(errors: int, count: int, rate: float) -> None:
    expected = float(binom.cdf(min(errors, count), count, rate))
    assert binomial_tail(errors, count, rate) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_binomial_bounds_at_the_extremes() -> None:
    assert binomial_upper(5, 5, 0.05) == 1
    assert binomial_upper(0, 0, 0.05) == 1
    assert binomial_tail(3, 5, 0.0) == 1
    assert binomial_tail(3, 5, 1.0) == 0
    assert binomial_tail(5, 5, 0.5) == 1
    with pytest.raises(InvalidInput, match="6 of 5 is not possible"):
        binomial_upper(6, 5, 0.05)


def test_408_samples_without_error_certify_0_73_percent() -> None:
    losses_N = np.zeros(408)
    bound = upper_bound(losses_N, 0.05, DISAGREEMENT)
    assert bound == pytest.approx(0.00731567, abs=1e-7)
    assert certifies(losses_N, 0.00732, 0.05, DISAGREEMENT)
    assert not certifies(losses_N, 0.0073, 0.05, DISAGREEMENT)


@pytest.mark.parametrize(
    ("mean", "kind"),
    [(0.02, DISAGREEMENT), (0.3, DISAGREEMENT), (0.01, DROP), (-0.2, DROP), (0.1, SHARES)],
    ids=str,
)
def test_certifies_is_wrong_with_probability_at_most_delta(mean: float, kind: LossKind) -> None:
    """1,000 samples of 300 losses are drawn with the worst case, a mean just above the bound."""
    rng = np.random.default_rng(11)
    draws_RN = _draw(rng, mean, kind, (REPETITIONS, 300))
    passed = [certifies(losses_N, mean - 1e-9, 0.1, kind) for losses_N in draws_RN]
    assert np.mean(passed) <= largest_observed_rate(0.1)


def test_betting_bound_covers_the_mean_and_tightens_with_n() -> None:
    """Of 300 bounds at δ = 0.1 at most a tenth are below the mean; they tighten with n."""
    rng = np.random.default_rng(12)
    draws_RN = _draw(rng, 0.01, DROP, (300, 200))
    bounds_R = np.array([upper_bound(losses_N, 0.1, DROP) for losses_N in draws_RN])
    assert np.mean(bounds_R < 0.01) <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 300)
    widths = []
    for count in (200, 2_000, 20_000):
        draws = _draw(rng, 0.01, DROP, (10, count))
        widths.append(np.mean([upper_bound(losses_N, 0.1, DROP) for losses_N in draws]) - 0.01)
    assert widths[0] > 2 * widths[1] > 4 * widths[2] > 0


def test_losses_of_one_have_the_bound_one() -> None:
    assert upper_bound([1.0] * 9, 0.05, DROP) == 1
    assert upper_bound([1.0] * 9, 0.05, DISAGREEMENT) == 1


def test_betting_bound_is_tighter_than_hoeffding_for_low_variance() -> None:
    losses_N = np.zeros(4000)
    losses_N[::400] = 1
    losses_N[200::400] = -1
    hoeffding = 2 * math.sqrt(math.log(20) / (2 * 4000))
    assert upper_bound(losses_N, 0.05, DROP) < hoeffding / 5


@given(
    st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=80),
    st.floats(-0.9, 0.99),
)
def test_certifies_and_upper_bound_agree(losses: list[float], bound: float) -> None:
    upper = upper_bound(losses, 0.05, DROP)
    assert upper >= np.mean(losses)
    if abs(bound - upper) > 1e-9:
        assert certifies(losses, bound, 0.05, DROP) == (upper <= bound)


@given(st.lists(st.booleans(), min_size=1, max_size=80), st.floats(0.01, 0.99))
def test_certifies_and_upper_bound_agree_on_binary(losses: list[bool], bound: float) -> None:
    values = [float(loss) for loss in losses]
    upper = upper_bound(values, 0.05, DISAGREEMENT)
    if abs(bound - upper) > 1e-9:
        assert certifies(values, bound, 0.05, DISAGREEMENT) == (upper <= bound)


def test_empty_sample_certifies_nothing() -> None:
    assert upper_bound([], 0.05, DROP) == 1
    assert not certifies([], 0.5, 0.05, DROP)
    assert certifies([], 1.0, 0.05, DROP)
    assert not certifies([-1.0] * 1000, -1.0, 0.05, DROP)


@pytest.mark.parametrize(
    ("losses", "delta", "kind", "message"),
    [
        ([0.5], 0.05, DISAGREEMENT, "0.5 is not 0 or 1"),
        ([-1.0], 0.05, DISAGREEMENT, "-1 is not 0 or 1"),
        ([1.5], 0.05, DROP, r"1.5 is not in \[-1, 1\]"),
        ([math.nan], 0.05, DROP, "nan is not in"),
        ([0.0], 0.0, DROP, "delta: 0 is not between 0 and 1"),
        ([0.0], 1.0, DROP, "delta: 1 is not between 0 and 1"),
    ],
)
def test_losses_of_another_kind_are_rejected(
    losses: list[float], delta: float, kind: LossKind, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        upper_bound(losses, delta, kind)
    with pytest.raises(InvalidInput, match=message):
        certifies(losses, 0.5, delta, kind)


def _draw(rng: np.random.Generator, mean: float, kind: LossKind, shape: tuple[int, ...]) -> Any:
    """Draw losses with this mean: 0 or 1; −1, 0 or 1 with mostly 0; or from a beta distribution."""
    if kind.binary:
        return (rng.random(shape) < mean).astype(float)
    if kind is SHARES:
        return rng.beta(1.0, (1 - mean) / mean, shape)
    off = max(0.05, abs(mean))
    sign = np.where(rng.random(shape) < (1 + mean / off) / 2, 1.0, -1.0)
    return sign * (rng.random(shape) < off)


@pytest.mark.parametrize(("bound", "kind"), [(0.02, DISAGREEMENT), (0.005, DROP)], ids=str)
def test_false_alarm_rate_is_at_most_alpha_with_continuous_checks(
    bound: float, kind: LossKind
) -> None:
    """1,000 streams of 400 audits are checked after every audit."""
    rng = np.random.default_rng(13)
    streams_RN = _draw(rng, bound, kind, (REPETITIONS, 400))
    raised = [
        _run_until_alarm(Alarm(bound, 0.1, kind), stream_N) is not None for stream_N in streams_RN
    ]
    assert np.mean(raised) <= largest_observed_rate(0.1)


def test_alarm_is_valid_for_dependent_losses() -> None:
    """The mean given the past must be at most the bound; the errors of this test come in bursts."""
    rng = np.random.default_rng(14)
    raised = 0
    for _ in range(300):
        alarm, rate = Alarm(0.1, 0.1), 0.1
        for draw in rng.random(300):
            loss = float(draw < rate)
            rate = 0.02 if loss else min(0.1, rate + 0.01)
            if alarm.update(loss):
                raised += 1
                break
    assert raised / 300 <= 0.1 + 3 * math.sqrt(0.09 / 300)


def test_alarm_detects_a_violated_bound() -> None:
    """A mean of five times the bound is detected within 300 audits in nine of ten streams."""
    rng = np.random.default_rng(15)
    streams_RN = _draw(rng, 0.1, DISAGREEMENT, (100, 300))
    detected = [_run_until_alarm(Alarm(0.02, 0.05), stream_N) for stream_N in streams_RN]
    assert sum(at is not None for at in detected) >= 90


def test_alarm_detects_a_late_change() -> None:
    rng = np.random.default_rng(16)
    late = 0
    for _ in range(50):
        good_N = _draw(rng, 0.005, DISAGREEMENT, (1000,))
        bad_N = _draw(rng, 0.2, DISAGREEMENT, (300,))
        at = _run_until_alarm(Alarm(0.02, 0.05), np.concatenate([good_N, bad_N]))
        late += at is not None and at > 1000
    assert late >= 45


def _run_until_alarm(alarm: Alarm, stream_N: Any) -> int | None:
    for loss in stream_N.tolist():
        if alarm.update(loss):
            break
    return alarm.raised_at


def test_raised_alarm_stays_raised() -> None:
    alarm = Alarm(0.05, 0.05)
    while not alarm.update(1.0):
        pass
    seen = alarm.seen
    assert alarm.raised
    assert alarm.raised_at == seen
    assert alarm.mean == 1.0
    assert alarm.e_value >= 20
    assert all(alarm.update(0.0) for _ in range(100))
    assert alarm.seen == seen


def test_new_alarm_is_empty() -> None:
    alarm = Alarm(0.05, 0.05)
    assert (alarm.raised, alarm.mean, alarm.seen) == (False, None, 0)
    assert alarm.e_value == pytest.approx(1.0)


def test_restored_alarm_continues() -> None:
    rng = np.random.default_rng(17)
    stream_N = _draw(rng, 0.04, DROP, (400,))
    alarm, other = Alarm(0.01, 0.01, DROP), Alarm(0.01, 0.01, DROP)
    for number, loss in enumerate(stream_N.tolist()):
        if number == 123:
            other = Alarm.restore(json.loads(json.dumps(other.state())))
        assert alarm.update(loss) == other.update(loss)
    assert alarm.state() == other.state()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wealth": [1.0]}, "its state is damaged"),
        ({"wealth": [math.inf] * 16}, "its state is damaged"),
        ({"seen": -1}, "its state is damaged"),
        ({"wealth": None}, "cannot be read"),
        ({"bound": "much"}, "cannot be read"),
        ({"bound": 2.0}, "2 is not between 0 and 1"),
    ],
)
def test_damaged_state_is_rejected(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Alarm.restore(Alarm(0.05, 0.05).state() | change)
    with pytest.raises(InvalidInput, match="cannot be read"):
        Alarm.restore({})


@pytest.mark.parametrize(
    ("bound", "alpha", "kind"),
    [(0.0, 0.05, DISAGREEMENT), (1.0, 0.05, DROP), (-1.0, 0.05, DROP), (0.1, 0.0, DROP),
     (0.1, 1.0, DROP), (math.nan, 0.05, DROP)],
)  # fmt: skip
def test_bound_or_level_out_of_range_is_rejected(
    bound: float, alpha: float, kind: LossKind
) -> None:
    with pytest.raises(InvalidInput, match="is not between"):
        Alarm(bound, alpha, kind)


@pytest.mark.parametrize("loss", [-1.0, 0.5, 2.0, math.nan])
def test_rejected_loss_changes_nothing(loss: float) -> None:
    alarm = Alarm(0.05, 0.05)
    alarm.update(1.0)
    before = alarm.state()
    with pytest.raises(InvalidInput, match="is not a loss of this alarm's kind"):
        alarm.update(loss)
    assert alarm.state() == before
