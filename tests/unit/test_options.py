"""Options of a request: bounds, fallback to the settings, and modes."""

from __future__ import annotations

from typing import Any

import pytest

from mobile_client.options import MODES, RequestOptions, ResolvedOptions, allowed_tiers, apply_mode
from mobile_client.settings import MobileSettings
from shared.domain import RoutingDecision, Tier
from shared.errors import InvalidInput


@pytest.mark.parametrize(
    "given",
    [
        *({"deadline_ms": value} for value in (0, -1, 60_001, float("nan"))),
        *({"max_cost_lambda": value} for value in (0, -1, float("inf"), float("nan"))),
        {"mode": "fast"},
    ],
)
def test_options_out_of_bounds_are_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        RequestOptions(**given)
    (name,) = given
    assert refused.value.field == name
    assert refused.value.message.startswith(f"{name}: ")


def test_unset_options_are_those_of_the_settings() -> None:
    settings = MobileSettings(policy="edge", deadline_ms=700, mode="edge-max", max_cost_lambda=9)
    expected = ResolvedOptions("edge", 700.0, "edge-max", 9.0)
    assert RequestOptions().resolve(settings.request_options("cascade-routing")) == expected


def test_options_of_a_call_override_the_settings() -> None:
    options = RequestOptions("cloud", 50.0, "prefer-cloud", 20.0)
    resolved = options.resolve(MobileSettings().request_options("dimee-fixed"))
    assert resolved == ResolvedOptions("cloud", 50.0, "prefer-cloud", 20.0)


@pytest.mark.parametrize(
    ("mode", "ceiling", "unrestricted"),
    [("auto", None, True), ("edge-max", None, False), ("auto", 9.0, False)],
)
def test_only_a_request_without_mode_and_ceiling_is_unrestricted(
    mode: Any, ceiling: float | None, unrestricted: bool
) -> None:
    assert ResolvedOptions("cloud", 50.0, mode, ceiling).unrestricted == unrestricted


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("tier", Tier)
def test_applied_mode_chooses_an_allowed_tier_and_names_its_policy(mode: Any, tier: Tier) -> None:
    routing = RoutingDecision(tier, "any")
    applied = apply_mode(routing, mode)
    assert applied.tier in allowed_tiers(mode)
    assert applied is routing or applied.policy == applied.tier.value
    if mode == "prefer-cloud":
        assert applied.tier is Tier.CLOUD
    elif tier in allowed_tiers(mode):
        assert applied is routing
