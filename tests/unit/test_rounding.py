"""Numbers that messages suggest: the suggested value is accepted and not below the refused one."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_client.dispatch.tier_selector import ROUNDING_LAMBDA
from shared.errors import Overloaded
from shared.policies import POLICY_NAMES
from shared.rounding import minimum_text, rounded_up, shown_ms
from shared.serving.responses import error_response
from tests.support.played_tiers import one, world


@given(st.floats(1e-6, 1e6))
def test_suggested_minimum_is_not_below_the_limit(limit: float) -> None:
    suggested = float(minimum_text(limit))
    assert suggested >= limit * (1 - 1e-14)
    assert suggested == pytest.approx(limit, rel=1e-5)


@given(st.floats(0, 1e6), st.integers(0, 3))
def test_rounded_up_is_not_below_the_value(value: float, decimals: int) -> None:
    shown = rounded_up(value, decimals)
    assert value * (1 - 1e-14) <= shown <= value + 10**-decimals + 1e-9


def test_values_that_need_no_rounding_stay() -> None:
    assert (minimum_text(3.5), minimum_text(0.1 + 0.2), minimum_text(18)) == ("3.5", "0.3", "18")
    assert (rounded_up(0.1, 1), rounded_up(1.04, 1), rounded_up(2)) == (0.1, 1.1, 2)


@pytest.mark.parametrize("policy", [name for name in POLICY_NAMES if name != "random"])
@pytest.mark.parametrize("mode", ["auto", "only-on-device", "edge-max", "prefer-cloud"])
@pytest.mark.parametrize("ceiling", [0.5, 3.9, 8.6, 17.9])
def test_suggested_cost_ceiling_is_above_the_given_one_and_is_accepted(
    policy: str, mode: str, ceiling: float, tmp_path: Path
) -> None:
    """Also where the cheapest of all tiers is none that the policy would use."""
    for fail_over in ((), ("mobile",), ("edge",)):
        found = world(tmp_path, "answers", "answers", fail_over=fail_over)
        outcome = found.run(
            lambda mobile: one(mobile, policy=policy, mode=mode, max_cost_lambda=ceiling)
        )
        message = getattr(outcome, "message", None)
        if message is None:
            continue
        (suggested,) = map(float, re.findall(r"give at least ([\d.]+)", message))
        assert suggested > ceiling + ROUNDING_LAMBDA, message
        again = found.run(partial(one, policy=policy, mode=mode, max_cost_lambda=suggested))
        assert not hasattr(again, "message"), again


def test_retry_after_is_not_shorter_than_the_time_in_the_message() -> None:
    response = error_response(Overloaded("try again in 1.4 s", retry_after_s=1.4))
    assert response.headers["retry-after"] == "2"


def test_duration_is_never_shown_as_0_ms() -> None:
    assert [shown_ms(value) for value in (0.001, 0.99, 1, 1499.6)] == [
        "less than 1 ms", "less than 1 ms", "1 ms", "1500 ms",
    ]  # fmt: skip
