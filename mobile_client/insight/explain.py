"""Why a request went where it went: its decision and its attempts, in numbers and sentences."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from mobile_client.insight.replay import (
    AtHand,
    as_known,
    at_recorded_rate,
    expected_lambda,
    right_after,
    under,
    waiting_lambda,
)
from mobile_client.insight.request_trace import DecisionContext, RequestTrace
from mobile_client.resilience.escalation_budget import EXHAUSTED, OFFLINE, UNAVAILABLE
from shared.bundle.correctness_heads import TIERS, answer_facts
from shared.domain import Difficulty, Expectation, Reason, Tier
from shared.ledger.entry import LedgerEntry
from shared.policies.cascade_routing import CascadeRouting
from shared.policies.centroids import DIFFICULTIES
from shared.pricing.cost_model import CostModel

SAME = 1e-4
"""Worths that are closer than this, in probability, are the same: the ledger rounds them."""

BLIND = {
    "random": "drawn by lot, from a seed; it does not look at the text",
    Tier.MOBILE.value: "everything stays on the mobile; it does not look at the text",
    Tier.EDGE.value: "everything goes to the edge; it does not look at the text",
    Tier.CLOUD.value: "everything goes to the cloud; it does not look at the text",
    "bert": "everything runs through all layers on the mobile; it does not look at the text",
    "early-exit": "everything stays on the mobile until an exit is sure; nothing is weighed before",
    "adaee": "everything starts on the mobile; what is not sure by the threshold that its bandit"
    " had learned by then goes to the cloud",
    "i-splitee": "everything starts on the mobile, up to the layer that its bandit had learned by"
    " then; what is not sure there goes to the cloud",
}


@dataclass(frozen=True, slots=True)
class TierView:
    """What was known of starting at a tier.

    ``right`` and ``leaves_early`` are probabilities. ``goes_on_sure`` and ``goes_on_not_sure`` are
    the shares of typical answers, sure and not, that go on to another tier; the rest stays.
    ``goes_on_to``: the worth is that of all that is not sure going there; None: of deciding after
    the answer. ``cost_lambda`` is expected, going on included, ``least_lambda`` and
    ``most_lambda`` are its bounds; of the bundle at hand and today's prices. ``delay_ms`` is what
    the mobile knew of the tier's delay, ``waiting_lambda`` what the expected waiting adds to the
    cost, at the price of waiting of then.
    ``worth`` is in probability of a right answer; None: not possible then, or not recorded.
    ``booked_*`` is what answers there really cost.
    """

    tier: Tier
    right: float | None = None
    leaves_early: float | None = None
    goes_on_sure: dict[Tier, float] | None = None
    goes_on_not_sure: dict[Tier, float] | None = None
    goes_on_to: Tier | None = None
    cost_lambda: float | None = None
    least_lambda: float | None = None
    most_lambda: float | None = None
    delay_ms: float | None = None
    waiting_lambda: float | None = None
    worth: float | None = None
    difficulty: Difficulty | None = None
    distance: float | None = None
    booked_lambda: float | None = None
    booked_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Option:
    """Going on to ``tier`` after an answer: ``gain`` and ``price`` in probability of being right.

    The price is for ``cost_lambda`` and for ``waiting_lambda``. Worth it where the gain is the
    greater.
    """

    tier: Tier
    gain: float
    cost_lambda: float
    waiting_lambda: float
    price: float

    @property
    def worth(self) -> float:
        """Gain less price."""
        return self.gain - self.price


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One attempt: what was answered, how likely it is right, and what the tiers above offered."""

    ordinal: int
    tier: Tier
    reason: str
    state: str
    verdict: str
    error_code: str | None = None
    label: str | None = None
    confidence: float | None = None
    exit_layer: int | None = None
    right: float | None = None
    options: list[Option] = field(default_factory=list)
    round_trip_ms: float | None = None
    cost_lambda: float | None = None
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The story of one request. ``why`` is one sentence; ``notes`` say what is not known.

    ``price`` is Λ, ``latency_price_lambda`` the price of waiting a millisecond that was decided by.
    """

    request_id: str
    policy: str
    bundle_id: str
    alpha: float | None
    price: float | None
    why: str
    tiers: list[TierView]
    attempts: list[AttemptView]
    notes: list[str]
    certificate_id: str | None = None
    latency_price_lambda: float | None = None


def explain(request: RequestTrace, at_hand: AtHand) -> Explanation:
    """Tell why this tier, what the others would have cost, and what came of each attempt.

    With another bundle than the request's only what the ledger has is told, and said so.
    """
    first = request.first
    fits = first.bundle_id == at_hand.bundle.bundle_id
    value = at_hand.value if fits and first.policy == CascadeRouting.name else None
    notes = [] if fits else [_other_bundle(first.bundle_id, at_hand.bundle.bundle_id)]
    knew = request.knew
    if value is not None and knew is not None:
        value = _at_that_time(value, knew)
    if knew is not None and knew.expectation is not None:
        why = _why_worth(first.tier, knew, value)
        tiers = [_weighed(tier, request, knew, knew.expectation, value) for tier in TIERS]
        notes += _moved(knew, knew.expectation, value)
    elif knew is not None and knew.distances is not None:
        why = _why_near(first, knew.distances)
        tiers = [_near(tier, request, knew.distances, at_hand if fits else None) for tier in TIERS]
    else:
        why = _why_blind(first)
        tiers = [_bounds(tier, request, at_hand if fits else None) for tier in TIERS]
    return Explanation(
        request_id=first.request_id,
        policy=first.policy or "unknown",
        bundle_id=first.bundle_id,
        alpha=knew.alpha if knew and knew.alpha is not None else _alpha(at_hand, fits),
        price=value.price if value else None,
        why=why,
        tiers=tiers,
        attempts=_attempts(request, at_hand, value),
        notes=notes,
        certificate_id=first.certificate_id,
        latency_price_lambda=knew.latency_price_lambda if knew else None,
    )


def _at_that_time(value: CascadeRouting, knew: DecisionContext) -> CascadeRouting:
    """The policy at the price of waiting and the delays that were decided by.

    Without a record of them it knows no delay, and waiting adds nothing.
    """
    return as_known(at_recorded_rate(value, knew), knew)


def _alpha(at_hand: AtHand, fits: bool) -> float | None:
    return at_hand.bundle.manifest.alpha if fits else None


def _other_bundle(theirs: str, ours: str) -> str:
    return (
        f"the request was answered with bundle {theirs}, and {ours} is at hand: what the ledger "
        "has is told, costs and gains that need the bundle are not; give its folder with --bundle"
    )


def _why_worth(chosen: Tier, knew: DecisionContext, value: CascadeRouting | None) -> str:
    expected_values = dict(zip(TIERS, knew.expected_values or (None, None, None), strict=True))
    mine = expected_values[chosen]
    if mine is None:
        return f"{chosen}: no tier was possible, and the mobile is always there"
    others = [
        (worth, tier)
        for tier, worth in expected_values.items()
        if worth is not None and tier is not chosen
    ]
    away = [tier.value for tier, worth in expected_values.items() if worth is None]
    why = f"{chosen} had the highest worth, {points(mine)}"
    if others:
        next_worth, runner = max(others)
        ahead = mine - next_worth
        why += f"; {runner} was next, {points(ahead, sign=False)} behind"
        if value is not None and value.price > 0:
            why += f", which is what {ahead / value.price:.1f} λ are worth"
    if away:
        why += f"; {' and '.join(away)} could not be asked then (away, or slower than the deadline)"
    return why


def points(probability: float, sign: bool = True) -> str:
    """A difference of probabilities in percentage points."""
    return f"{100 * probability:{'+' if sign else ''}.2f} points"


def _weighed(
    tier: Tier,
    request: RequestTrace,
    knew: DecisionContext,
    expectation: Expectation,
    value: CascadeRouting | None,
) -> TierView:
    index = TIERS.index(tier)
    view = replace(
        _booked(tier, request),
        right=expectation.expected[index],
        leaves_early=None if tier is Tier.CLOUD else expectation.expected[len(TIERS) + index],
        worth=knew.expected_values[index] if knew.expected_values else None,
    )
    if knew.delays is not None:
        view = replace(view, delay_ms=knew.delays.get(tier))
    if value is None:
        return view
    everyone = under(value, replace(value.conditions, up={}, left_ms=None))
    if tier is not Tier.CLOUD:
        sure, not_sure = (
            {to: float(share) for to, share in zip(TIERS, row_T, strict=True) if share > 0}
            for row_T in everyone.going_on(index).share_ST
        )
        to = everyone.valued_plan(index, expectation)
        view = replace(view, goes_on_sure=sure, goes_on_not_sure=not_sure, goes_on_to=to)
    return replace(
        view,
        cost_lambda=expected_lambda(everyone, tier, expectation),
        waiting_lambda=waiting_lambda(everyone, tier, expectation)
        if knew.latency_price_lambda
        else None,
    )


def _moved(
    knew: DecisionContext, expectation: Expectation, value: CascadeRouting | None
) -> list[str]:
    """Whether today's prices find other expected_values than those that were decided by."""
    if value is None or knew.expected_values is None:
        return []
    today = value.plan(expectation).expected_values or ()
    pairs = zip(knew.expected_values, today, strict=False)
    if all(a is not None and b is not None and abs(a - b) <= SAME for a, b in pairs):
        return []
    return [
        "expected values are as recorded; today's prices and thresholds give others, and expected "
        "costs and gains are today's"
    ]


def _why_near(first: LedgerEntry, distances: tuple[float, ...]) -> str:
    nearest = first.difficulty.value if first.difficulty else "?"
    found = sorted(distance for distance in distances if math.isfinite(distance))
    margin = f", {found[1] - found[0]:.4f} nearer than the next" if len(found) > 1 else ""
    moved = " as it stood then" if first.policy == "dimee-adaptive" else ""
    return (
        f"{first.tier}: the text's mean word embedding is nearest to the centroid of the "
        f"{nearest} pool{moved}{margin}; cost is not weighed"
    )


def _near(
    tier: Tier, request: RequestTrace, distances: tuple[float, ...], at_hand: AtHand | None
) -> TierView:
    difficulty = next(one for one in DIFFICULTIES if one.tier is tier)
    distance = distances[DIFFICULTIES.index(difficulty)]
    return replace(
        _bounds(tier, request, at_hand),
        difficulty=difficulty,
        distance=distance if math.isfinite(distance) else None,
    )


def _bounds(tier: Tier, request: RequestTrace, at_hand: AtHand | None) -> TierView:
    view = _booked(tier, request)
    if at_hand is None:
        return view
    prices: CostModel = (
        at_hand.value.conditions.cost_model if at_hand.value else at_hand.bundle.cost_model
    )
    deepest = {Tier.MOBILE: at_hand.mobile_layers, Tier.EDGE: at_hand.edge_layers}
    return replace(
        view,
        least_lambda=prices.attempt(tier, 1),
        most_lambda=prices.attempt(tier, deepest.get(tier, prices.layers)),
    )


def _booked(tier: Tier, request: RequestTrace) -> TierView:
    entry = next((one for one in request.path if one is request.answers.get(tier)), None)
    if entry is None:
        return TierView(tier)
    return TierView(tier, booked_lambda=entry.cost_lambda, booked_usd=entry.cost_usd)


def _why_blind(first: LedgerEntry) -> str:
    if first.degraded:
        return (
            f"{first.tier}: the promise of certificate {first.certificate_id} was found not to "
            "hold, and until it does everything goes to the cloud"
        )
    policy = first.policy or ""
    if policy in BLIND:
        return f"{first.tier} by {policy}: {BLIND[policy]}"
    return (
        f"{first.tier} by {policy or 'an unknown policy'}: what it knew is not in the ledger (the "
        "entry is from before decisions were recorded, or of another version); its attempts are"
    )


def _attempts(
    request: RequestTrace, at_hand: AtHand, value: CascadeRouting | None
) -> list[AttemptView]:
    decisions = {entry.attempt_id: asked for entry, asked in request.second_decisions()}
    views = []
    for entry in request.path:
        view = AttemptView(
            ordinal=entry.ordinal,
            tier=entry.tier,
            reason=entry.reason.value if entry.reason else "",
            state=entry.state.value,
            verdict="",
            error_code=entry.error_code,
            label=entry.label,
            confidence=entry.confidence,
            exit_layer=entry.exit_layer,
            round_trip_ms=entry.round_trip_ms,
            cost_lambda=entry.cost_lambda,
            cost_usd=entry.cost_usd,
        )
        if entry.error_code == EXHAUSTED:
            verdict = "kept: another tier would have been asked, but its client's budget is used up"
            views.append(replace(view, verdict=verdict))
            continue
        if entry.error_code in (OFFLINE, UNAVAILABLE) and entry.reason is not Reason.FAIL_OVER:
            verdict = "kept: another tier would have been asked, but its server is left alone"
            views.append(replace(view, verdict=verdict))
            continue
        if entry.attempt_id not in decisions:
            verdict = "taken up again: nobody gave a better answer" if entry.label else "no answer"
            views.append(replace(view, verdict=verdict))
            continue
        asked = decisions[entry.attempt_id]
        expectation = request.knew.expectation if request.knew else None
        if value is None or expectation is None:
            views.append(replace(view, verdict=f"went on to {asked}" if asked else "stayed"))
            continue
        outcome = at_hand.outcome(entry)
        options = _options(value, expectation, at_hand, entry)
        views.append(
            replace(
                view,
                right=right_after(value, expectation, outcome, entry.tier),
                options=options,
                verdict=_verdict(asked, options),
            )
        )
    return views


def _options(
    value: CascadeRouting, expectation: Expectation, at_hand: AtHand, entry: LedgerEntry
) -> list[Option]:
    outcome, index = at_hand.outcome(entry), TIERS.index(entry.tier)
    agrees = outcome.label == expectation.label
    facts_G = answer_facts(outcome.confidence, agrees, expectation.margin, expectation.length)
    found = []
    for target in range(index + 1, len(TIERS)):
        layers = float(value.heads.layers_T2[target, 1])
        cost = value.conditions.cost(TIERS[target], layers)
        gain = value.heads.gain(index, target, facts_G)
        waiting = value.conditions.waiting(TIERS[target])
        found.append(Option(TIERS[target], gain, cost - waiting, waiting, value.price * cost))
    return found


def _verdict(asked: Tier | None, options: list[Option]) -> str:
    worth = [one for one in options if one.worth > 0]
    best = max(worth, key=lambda one: one.worth).tier if worth else None
    if asked is best:
        if asked is not None:
            return f"went on to {asked}, whose gain is worth its price"
        return "stayed: no gain is worth its price" if options else "stayed: there is none above"
    went = f"went on to {asked}" if asked else "stayed"
    found = f"{best} would be asked" if best else "it would stay"
    return f"{went}; at today's prices {found} (prices or delays were others, or a tier was away)"
