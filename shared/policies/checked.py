"""Checks around a policy that is not built in: its members, its decisions and its errors."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Collection
from contextlib import suppress
from numbers import Integral, Real
from typing import Any

from shared.domain import Difficulty, Outcome, RoutingDecision, Tier
from shared.errors import InvalidInput, PolicyFailed
from shared.policies.base import PolicyFacts, TextFeatures
from shared.policies.conditions import Conditions
from shared.policies.loading import described, shown

log = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
METHODS = ("route", "escalate", "learn", "use_conditions")
MEMBERS = ("name", "policy_layers", "learns", "uses_conditions", *METHODS)
_TIERS = tuple(Tier)


class CheckedPolicy:
    """Policy that calls another one and checks what it returns.

    `route` and `escalate` raise `PolicyFailed` if the policy raises an error or returns something
    that the tiers cannot do; `learn` does not raise. The log says once for each method what went
    wrong. Decisions carry the policy's name, and none of the inputs of built-in policies.

    Raises `InvalidInput` if the policy lacks a member, or if its name is not valid or one of
    ``reserved``. ``where`` names the policy's class in messages.
    """

    def __init__(
        self, policy: Any, facts: PolicyFacts, reserved: Collection[str], where: str = ""
    ) -> None:
        where = where or type(policy).__qualname__
        try:
            _check_members(policy, facts.cost_model.layers, where)
        except InvalidInput:
            raise
        except (Exception, SystemExit) as error:  # a member may be a property
            raise _invalid(f"{where} cannot be used ({described(error)})") from error
        if policy.name in reserved:
            raise _invalid(
                f"the name {policy.name!r} of {where} is that of a built-in policy; give it another"
            )
        self.policy = policy
        self.name: str = policy.name
        self.policy_layers: int | None = policy.policy_layers
        self.learns: bool = policy.learns
        self.uses_conditions: bool = policy.uses_conditions
        self._layers = max(facts.mobile_layers, self.policy_layers or 1)
        self._logged: set[str] = set()

    def use_conditions(self, conditions: Conditions) -> None:
        """Pass the conditions on."""
        self._call("use_conditions", conditions)

    def route(self, features: TextFeatures) -> RoutingDecision:
        """Return the policy's decision; raise `PolicyFailed` if there is none or it is invalid."""
        decision = self._call("route", features)
        problem = _problem(decision, self._layers)
        if problem is not None:
            raise self._failed("route", problem)
        return RoutingDecision(
            decision.tier,
            self.name,
            decision.difficulty,
            alpha=None if decision.alpha is None else float(decision.alpha),
            first_exit=int(decision.first_exit),
            last_layer=None if decision.last_layer is None else int(decision.last_layer),
            escalate_to=decision.escalate_to,
        )

    def escalate(
        self,
        features: TextFeatures,
        decision: RoutingDecision,
        outcome: Outcome,
        meets_threshold: bool,
    ) -> Tier | None:
        """Return the policy's choice; None if it is the tier that answered.

        The policy is not asked about answers of the cloud. Raises `PolicyFailed` if it raises an
        error or returns anything but None and a tier.
        """
        if outcome.tier is Tier.CLOUD:
            return None
        target = self._call("escalate", features, decision, outcome, meets_threshold)
        if target is None or target is outcome.tier:
            return None
        if not isinstance(target, Tier):
            raise self._failed("escalate", f"returned {shown(target)}; return a Tier or None")
        if _TIERS.index(target) < _TIERS.index(outcome.tier):
            raise self._failed(
                "escalate",
                f"returned {target} for an answer of the {outcome.tier}; return a tier above it",
            )
        return target

    def learn(self, decision: RoutingDecision, outcome: Outcome) -> None:
        """Pass the outcome on; an error is logged, and the answer is not affected."""
        with suppress(PolicyFailed):
            self._call("learn", decision, outcome)

    def _call(self, method: str, *arguments: Any) -> Any:
        """Return what a method of the policy returns; raise `PolicyFailed` for all that it raises.

        That includes `asyncio.CancelledError`, which would look like a cancelled call. Only Ctrl-C,
        which reaches the main thread of a command, goes on.
        """
        try:
            return getattr(self.policy, method)(*arguments)
        except BaseException as error:
            is_main = threading.current_thread() is threading.main_thread()
            if isinstance(error, KeyboardInterrupt) and is_main:
                raise
            raise self._failed(method, described(error)) from error

    def _failed(self, method: str, problem: str) -> PolicyFailed:
        self._log(method, problem)
        return PolicyFailed(
            f"policy: {self.name!r} failed in its method {method}; the log says why", field="policy"
        )

    def _log(self, method: str, problem: str) -> None:
        if method not in self._logged:
            self._logged.add(method)
            log.error("policy %r, method %s: %s", self.name, method, problem)


def _check_members(policy: Any, layers: int, where: str) -> None:
    if isinstance(policy, type):
        name = policy.__qualname__
        raise _invalid(f"{name} is a class; give an object of it, such as {name}()")
    missing = [name for name in MEMBERS if not hasattr(policy, name)]
    if missing:
        named = " and give it a name" if "name" in missing else ""
        raise _invalid(
            f"{where} lacks {', '.join(missing)}; derive it from shared.policies.StatelessPolicy"
            f"{named}"
        )
    name = policy.name
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise _invalid(
            f"the name {shown(name)} of {where} is not valid; use at most 64 letters, digits, "
            "dots, hyphens and underscores"
        )
    depth = policy.policy_layers
    checks = {
        "policy_layers": depth is None or (_is_int(depth) and 1 <= depth <= layers),
        "learns": isinstance(policy.learns, bool),
        "uses_conditions": isinstance(policy.uses_conditions, bool),
        **{method: callable(getattr(policy, method)) for method in METHODS},
    }
    wrong = [member for member, valid in checks.items() if not valid]
    if wrong:
        raise _invalid(
            f"{where} has an invalid {wrong[0]} ({shown(getattr(policy, wrong[0]))}); see "
            f"shared.policies.RoutingPolicy, and {layers} layers are the most of this bundle"
        )


def _problem(decision: object, layers: int) -> str | None:
    """Return what is wrong with a decision; ``layers`` are loaded on the mobile."""
    if not isinstance(decision, RoutingDecision):
        return f"returned {shown(decision)}; return a RoutingDecision"
    tiers = {"tier": decision.tier, "escalate_to": decision.escalate_to}
    for field, tier in tiers.items():
        if not isinstance(tier, Tier) and (field == "tier" or tier is not None):
            return (
                f"returned {field}={shown(tier)}, which is not a Tier; "
                "give Tier.MOBILE, Tier.EDGE or Tier.CLOUD"
            )
    last = layers if decision.last_layer is None else decision.last_layer
    if not (_is_int(last) and 1 <= last <= layers):
        return (
            f"returned last_layer={shown(decision.last_layer)}, but the mobile has {layers} layers "
            "for this policy; set policy_layers to load more"
        )
    if not (_is_int(decision.first_exit) and 1 <= decision.first_exit <= last):
        return f"returned first_exit={shown(decision.first_exit)}, which is not in 1 to {last}"
    alpha = decision.alpha
    if alpha is not None and not (_is_number(alpha) and 0 < alpha <= 1):
        return f"returned alpha={shown(alpha)}, which is not above 0 and at most 1"
    if decision.difficulty is not None and not isinstance(decision.difficulty, Difficulty):
        return f"returned difficulty={shown(decision.difficulty)}, which is not a Difficulty"
    return None


def _is_int(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _invalid(problem: str) -> InvalidInput:
    return InvalidInput(f"policy: {problem}", field="policy")
