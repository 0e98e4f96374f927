"""Options of a request: policy, deadline, mode and cost ceiling."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, SupportsFloat, cast, get_args

from pydantic import TypeAdapter, ValidationError

from shared.domain import RoutingDecision, Tier
from shared.errors import InvalidInput
from shared.field_types import CostCeiling, DeadlineMs, Word, is_boolean
from shared.policies import RoutingPolicy
from shared.policies.loading import is_path
from shared.validation import request_error

Mode = Literal["auto", "only-on-device", "edge-max", "prefer-cloud"]
MODES: tuple[Mode, ...] = get_args(Mode)
_ALLOWED_TIERS = {
    "auto": frozenset(Tier),
    "only-on-device": frozenset({Tier.MOBILE}),
    "edge-max": frozenset({Tier.MOBILE, Tier.EDGE}),
    "prefer-cloud": frozenset(Tier),
}


# the fields of `shared.wire.ClassifyRequest`
_WORD: TypeAdapter[Any] = TypeAdapter(Word | None)
_DEADLINE: TypeAdapter[Any] = TypeAdapter(DeadlineMs | None)
_CEILING: TypeAdapter[Any] = TypeAdapter(CostCeiling | None)


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """Options of one call; an option that is None takes its value from the settings.

    ::

        options = RequestOptions(policy="cloud", deadline_ms=800, mode="edge-max")
        answer = mobile.classify("a gripping, funny film", options=options)

    Raises `InvalidInput`, as the gateway does, for a value of another type or out of bounds.
    """

    policy: str | RoutingPolicy | None = None
    """Routing policy that chooses the first tier: the name of a built-in or installed policy,
    ``module:Class``, or an object."""
    deadline_ms: float | None = None
    """Time for all attempts of one text together, in milliseconds; at most 60,000."""
    mode: str | None = None
    """Tiers that may be used, one of `MODES`: ``auto`` allows all and leaves the choice to the
    policy, ``only-on-device`` allows the mobile, ``edge-max`` the mobile and the edge,
    ``prefer-cloud`` allows all and starts in the cloud."""
    max_cost_lambda: float | None = None
    """Most that all attempts of one text may cost together, in λ."""

    def __post_init__(self) -> None:
        """Check all values except the policy's name, which the mobile checks when it routes."""
        if isinstance(self.policy, str) and not is_path(self.policy):
            _check("policy", self.policy, _WORD)
        self._keep("deadline_ms", _number("deadline_ms", self.deadline_ms, _DEADLINE))
        _check("mode", self.mode, _WORD)
        if self.mode:
            check_mode(self.mode)
        ceiling = _number("max_cost_lambda", self.max_cost_lambda, _CEILING)
        self._keep("max_cost_lambda", ceiling)

    def _keep(self, field: str, value: float | None) -> None:
        object.__setattr__(self, field, value)  # the class is frozen for its users

    def resolve(self, defaults: ResolvedOptions) -> ResolvedOptions:
        """Return the options with ``defaults`` in place of those that are None."""
        return ResolvedOptions(
            policy=defaults.policy if self.policy in (None, "") else self.policy,
            deadline_ms=defaults.deadline_ms if self.deadline_ms is None else self.deadline_ms,
            mode=check_mode(self.mode) if self.mode else defaults.mode,
            max_cost_lambda=(
                defaults.max_cost_lambda if self.max_cost_lambda is None else self.max_cost_lambda
            ),
        )


@dataclass(frozen=True, slots=True)
class ResolvedOptions:
    """Options of a request, with values from the settings for those that the call left out."""

    policy: str | RoutingPolicy
    deadline_ms: float
    mode: Mode = "auto"
    max_cost_lambda: float | None = None

    @property
    def unrestricted(self) -> bool:
        """True if the policy alone decides where the request goes."""
        return self.mode == "auto" and self.max_cost_lambda is None


def allowed_tiers(mode: Mode) -> frozenset[Tier]:
    """Return the tiers that ``mode`` allows."""
    return _ALLOWED_TIERS[mode]


def apply_mode(routing: RoutingDecision, mode: Mode) -> RoutingDecision:
    """Return the policy's decision, or another one if ``mode`` does not allow it.

    The new decision names the policy that always chooses its tier. For example, the ledger's
    ``policy`` is ``cloud`` if ``prefer-cloud`` sent the request there.
    """
    if mode == "prefer-cloud":
        tier = Tier.CLOUD
    elif routing.tier not in allowed_tiers(mode):
        tier = Tier.EDGE if Tier.EDGE in allowed_tiers(mode) else Tier.MOBILE
    else:
        return routing
    return routing if tier is routing.tier else RoutingDecision(tier, policy=tier.value)


def check_mode(name: str) -> Mode:
    """Return the mode of this name; raise `InvalidInput` for an unknown one."""
    for mode in MODES:
        if mode == name:
            return mode
    raise InvalidInput(f"mode: {name[:40]!r} is not known; choose {', '.join(MODES)}", field="mode")


def _number(field: str, value: object, kind: TypeAdapter[Any]) -> float | None:
    """Return a number of any numeric type as a float; other values are refused as `_check` does."""
    if is_boolean(value):
        value = bool(value)  # pydantic refuses Python's boolean, but not numpy's
    elif isinstance(value, SupportsFloat):
        with suppress(OverflowError):  # an integer of hundreds of digits is refused below
            value = float(value)
    _check(field, value, kind)
    return cast("float | None", value)


def _check(field: str, value: object, kind: TypeAdapter[Any]) -> None:
    """Raise the `InvalidInput` that the gateway raises for this value of a request's field."""
    try:
        kind.validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise request_error(dict(first) | {"loc": (field,)}) from None
