"""Where a request may go at all: the mobile's modes."""

from __future__ import annotations

from typing import Literal

from shared.domain import RoutingDecision, Tier
from shared.errors import InvalidInput

Mode = Literal["auto", "only-on-device", "edge-max", "prefer-cloud"]
MODES: tuple[Mode, ...] = ("auto", "only-on-device", "edge-max", "prefer-cloud")
_ALLOWED = {
    "auto": frozenset(Tier),
    "only-on-device": frozenset({Tier.MOBILE}),
    "edge-max": frozenset({Tier.MOBILE, Tier.EDGE}),
    "prefer-cloud": frozenset(Tier),
}


def allowed(mode: Mode) -> frozenset[Tier]:
    """The tiers that may be asked, first, later, as a hedge or as an audit."""
    return _ALLOWED[mode]


def placed(routing: RoutingDecision, mode: Mode) -> RoutingDecision:
    """The decision as the mode has it; one that it overrules is that of the policy of its tier.

    The ledger's ``policy`` says so: ``cloud`` where ``prefer-cloud`` sent it there.
    """
    if mode == "prefer-cloud":
        tier = Tier.CLOUD
    elif routing.tier not in allowed(mode):
        tier = Tier.EDGE if Tier.EDGE in allowed(mode) else Tier.MOBILE
    else:
        return routing
    return routing if tier is routing.tier else RoutingDecision(tier, policy=tier.value)


def check_mode(name: str) -> Mode:
    """The mode of this name; raises `InvalidInput`."""
    for mode in MODES:
        if mode == name:
            return mode
    raise InvalidInput(f"mode: {name[:40]!r} is not known; choose {', '.join(MODES)}", field="mode")
