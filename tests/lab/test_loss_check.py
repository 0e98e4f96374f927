"""The paired test of the exported precision: refusals, passes, warnings and its level."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from lab.export.loss_check import (
    LEVEL,
    MAX_LOSS,
    check_losses,
    exit_losses,
    few_texts_warning,
    loss_table,
    losses_of_counts,
    lower_bound,
    p_value,
    texts_needed,
)
from shared.errors import InvalidInput
from tests.support.paths import REPOSITORY
from tests.support.toy_samples import toy


def test_losses_are_counted_on_the_same_texts() -> None:
    """Text 0 is lost at exit 2, text 1 gained there; the label of the other exits is unchanged."""
    full = toy(50, 3)
    right = np.array([[0.1, 0.9], [0.9, 0.1]], np.float32)
    before, after = full.probabilities_NEC.copy(), full.probabilities_NEC.copy()
    labels_N = np.ones(50, np.int64)
    before[0, 1], after[0, 1] = right
    before[1, 1], after[1, 1] = right[::-1]
    before[2, 3], after[2, 3] = right
    losses = exit_losses(
        replace(full, probabilities_NEC=before, labels_N=labels_N),
        replace(full, probabilities_NEC=after, labels_N=labels_N),
    )
    assert [(loss.exit, loss.lost, loss.gained) for loss in losses] == [
        (1, 0, 0),
        (2, 1, 1),
        (3, 0, 0),
        (4, 1, 0),
    ]
    assert losses[3].points == 2.0
    assert all(loss.low <= loss.points <= loss.high for loss in losses)


def test_two_of_210_texts_at_an_intermediate_exit_pass() -> None:
    """0.95 points are more than allowed and within the noise."""
    losses = losses_of_counts([0, 0, 2, 0, 0, 0], [0] * 6, 210)
    assert losses[2].points > MAX_LOSS
    check_losses(losses, MAX_LOSS)


def test_thirty_of_1000_texts_at_one_exit_are_refused() -> None:
    """The message names exit, loss, counts, texts, interval, and an option that is accepted."""
    losses = losses_of_counts([0, 1, 30, 0, 2, 0], [1, 0, 0, 0, 2, 0], 1000)
    with pytest.raises(InvalidInput) as refused:
        check_losses(losses, MAX_LOSS)
    message, loss = refused.value.message, losses[2]
    assert refused.value.field == "max_loss"
    for part in (
        "exit 3 loses 3.00 points",
        "0.5 are allowed",
        "of 1,000 texts, 30 are right in fp32 only and 0 in the bundle only",
        f"{loss.low:.2f} to {loss.high:.2f} points",
        "train longer or on more data",
        "--max-loss 2;",
        "the bundle was not written",
    ):
        assert part in message
    assert 0.5 < loss.low < 2
    check_losses(losses, 2.0)


def test_how_to_has_the_message_and_the_number_of_texts() -> None:
    page = (REPOSITORY / "docs" / "how-to" / "train-a-bundle.md").read_text(encoding="utf-8")
    with pytest.raises(InvalidInput) as refused:
        check_losses(losses_of_counts([0, 0, 30, 0, 0, 0], [0] * 6, 1000), MAX_LOSS)
    assert f"dimee: {refused.value.message}\n" in page
    assert f"({texts_needed(6, MAX_LOSS):,} for six exits)" in page


def test_gained_texts_count_against_lost_ones() -> None:
    """30 lost and 28 gained is no loss beyond noise, though the same 30 alone are refused."""
    check_losses(losses_of_counts([30], [28], 1000), MAX_LOSS)
    with pytest.raises(InvalidInput):
        check_losses(losses_of_counts([30], [0], 1000), MAX_LOSS)


def test_every_refused_exit_is_named_and_the_hint_covers_all() -> None:
    losses = losses_of_counts([40, 0, 90], [0, 0, 0], 1000)
    with pytest.raises(InvalidInput, match=r"exit 3 loses 9\.00 points.*so do exits 1"):
        check_losses(losses, MAX_LOSS)
    check_losses(losses, 7.0)


def test_more_exits_need_stronger_evidence() -> None:
    """Bonferroni: the interval of each exit is wider, the more exits there are."""
    few, many = (losses_of_counts([12] * exits, [0] * exits, 1000)[0] for exits in (2, 24))
    assert many.low < few.low < few.points < few.high < many.high


def test_stated_max_loss_of_zero_refuses_a_significant_loss_only() -> None:
    check_losses(losses_of_counts([3, 0], [0, 0], 400), 0.0)
    with pytest.raises(InvalidInput):
        check_losses(losses_of_counts([20, 0], [0, 0], 400), 0.0)


@pytest.mark.parametrize(("lost", "gained"), [(9, 0), (12, 3), (30, 30), (5, 9), (80, 40)])
def test_without_an_allowed_loss_it_is_close_to_mcnemars_test(lost: int, gained: int) -> None:
    """McNemar's exact test is conditional on the number of texts that differ."""
    conditional = binomtest(lost, lost + gained, alternative="greater").pvalue
    found = p_value(lost, gained, 5000, 0.0)
    assert conditional / 2 <= found <= conditional * 2


def refused_share(texts: int, gain: float, allowed: float, level: float) -> float:
    """Return the exact probability that the test refuses if the loss is ``allowed``."""
    total = 0.0
    for gained in range(int(binom.isf(1e-9, texts, gain)) + 1):
        least = next(
            lost
            for lost in range(gained, texts + 1)
            if p_value(lost, gained, texts, allowed) <= level
        )
        more = binom.sf(least - 1, texts - gained, (gain + allowed) / (1 - gain))
        total += float(binom.pmf(gained, texts, gain) * more)
    return total


@pytest.mark.parametrize("gain", [0.0001, 0.003, 0.02])
@pytest.mark.parametrize(("texts", "allowed"), [(210, 0.0), (210, 0.005), (500, 0.02)])
def test_exact_level_is_kept(texts: int, allowed: float, gain: float) -> None:
    """A loss at the limit is refused with at most the stated probability."""
    level = LEVEL / 12
    assert refused_share(texts, gain, allowed, level) <= level


def test_interval_contains_what_the_test_does_not_refuse() -> None:
    for lost, gained, texts in ((0, 0, 20), (7, 2, 210), (40, 10, 900)):
        low = lower_bound(lost, gained, texts, 0.005)
        assert p_value(lost, gained, texts, low - 1e-6) <= 0.005 or low == -1
        assert p_value(lost, gained, texts, low + 1e-6) > 0.005


def test_warning_says_what_few_texts_can_refuse_and_how_many_it_takes() -> None:
    warning = few_texts_warning(60, 6, MAX_LOSS)
    needed = texts_needed(6, MAX_LOSS)
    assert warning is not None
    assert "60 reported texts" in warning
    assert f"to refuse 1.5 points it needs {needed:,} texts" in warning
    assert few_texts_warning(needed, 6, MAX_LOSS) is None
    lost = round(0.015 * needed)
    with pytest.raises(InvalidInput):
        check_losses(losses_of_counts([lost, *[0] * 5], [0] * 6, needed), MAX_LOSS)
    one_less = losses_of_counts([lost - 1, *[0] * 5], [0] * 6, int((lost - 1) / 0.015))
    check_losses(one_less, MAX_LOSS)


def test_too_few_texts_to_refuse_anything() -> None:
    warning = few_texts_warning(5, 6, MAX_LOSS)
    assert warning is not None
    assert "5 reported texts, where it cannot refuse anything" in warning
    check_losses(losses_of_counts([5] * 6, [0] * 6, 5), MAX_LOSS)


@pytest.mark.parametrize("max_loss", [99.0, 100.0])
def test_no_warning_where_every_loss_is_allowed(max_loss: float) -> None:
    assert few_texts_warning(5, 6, max_loss) is None


def test_manifest_records_counts_and_intervals() -> None:
    table = loss_table(losses_of_counts([2, 0], [1, 0], 100), 0.5)
    assert table["max_loss"] == 0.5
    assert (table["lost"], table["gained"]) == ([2, 0], [1, 0])
    assert table["interval"][0][0] < 1.0 < table["interval"][0][1]
