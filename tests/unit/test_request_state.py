"""`RequestState` applies every row of its transition table, without any I/O."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from mobile_client.dispatch.events import (
    Accept,
    Answered,
    Failed,
    GiveUp,
    HedgeDue,
    HedgeEnded,
    MakeAttempt,
    Started,
    Wait,
)
from mobile_client.dispatch.request_state import (
    GRACE_MS,
    RequestState,
    Transition,
    combine_errors,
)
from mobile_client.dispatch.tier_selector import TierSelector
from mobile_client.local.runtime import TierAnswer
from mobile_client.options import Mode, allowed_tiers
from mobile_client.resilience.circuit_breaker import FAILURES
from mobile_client.resilience.tier_stats import TierStats
from shared.domain import Delivery, Reason, Tier
from shared.errors import (
    DeadlineExceeded,
    DimeeError,
    InvalidInput,
    NotFound,
    NotReady,
    Overloaded,
    TierFailed,
    TierUnreachable,
)
from shared.pricing.cost_model import CostModel
from shared.pricing.live_prices import LivePrices
from tests.support.clock import Clock
from tests.support.paths import REPOSITORY

COSTS = CostModel.paper(6)
LAYERS = {Tier.MOBILE: 2, Tier.EDGE: 3, Tier.CLOUD: 6}
MOBILE, EDGE, CLOUD = Tier
EDGE_LAMBDA = COSTS.attempt(EDGE, 3)
CLOUD_LAMBDA = COSTS.all_cloud
CHEAP_LAMBDA = COSTS.attempt(MOBILE, 2) + 0.1
"""A ceiling that pays for the mobile's own layers only."""
DEADLINE_MS = 1_000.0


class Driver:
    """A request state with a breaker for each server; checks the row that each event applies."""

    def __init__(
        self,
        routed: Tier,
        *,
        mode: Mode = "auto",
        ceiling: float | None = None,
        open_breakers: tuple[Tier, ...] = (),
        hedging: bool = False,
        **settings: Any,
    ) -> None:
        prices = LivePrices(COSTS)
        self.stats = TierStats(prices, 0.0, Clock())
        for tier in open_breakers:
            for _ in range(FAILURES):
                self.stats.breakers[tier].record_failure(unreachable=True)
        selector = TierSelector(self.stats, prices, LAYERS, allowed_tiers(mode), ceiling, hedging)
        settings = {"fail_over": (EDGE, CLOUD, MOBILE), "retries": 2} | settings
        self.state = RequestState(routed, DEADLINE_MS, selector, **settings)

    def send(self, event: Any, row: Transition, spent_ms: float = 10.0) -> Any:
        """Handle the event, check that it applied ``row``, and return the action."""
        action = self.state.handle(event, spent_ms)
        assert self.state.transition is row
        return action

    def start(self, row: Transition = Transition.ROUTE, **event: Any) -> Any:
        return self.send(Started(**event), row)

    def attempt(self, row: Transition = Transition.ROUTE) -> MakeAttempt:
        action = self.start(row)
        assert isinstance(action, MakeAttempt)
        return action


def answer(confidence: float = 0.6) -> TierAnswer:
    return TierAnswer("a", 0, {"a": confidence}, confidence, False, 2, False, 1.0, 2.0)


def answered(tier: Tier, result: TierAnswer, **event: Any) -> Answered:
    return Answered(tier, result, COSTS.attempt(tier, LAYERS[tier]), **event)


def failed(
    tier: Tier, error: DimeeError, delivery: Delivery = Delivery.UNKNOWN, **event: Any
) -> Failed:
    return Failed(tier, error, delivery, 0.0, **event)


def unreachable(tier: Tier) -> Failed:
    return failed(tier, TierUnreachable(f"the {tier} is unreachable"), Delivery.NOT_SENT)


@pytest.mark.parametrize("tier", Tier)
def test_routed_tier_is_attempted_first(tier: Tier) -> None:
    driver = Driver(tier)
    action = driver.attempt()
    assert (action.tier, action.reason, action.ordinal) == (tier, Reason.ROUTE, 1)
    assert (action.wait_ms, action.hedge_after_ms, action.reuses) == (0.0, None, None)
    others = [one for one in (EDGE, CLOUD, MOBILE) if one is not tier]
    assert driver.state.candidates == ([] if tier is MOBILE else others)


def test_tier_with_a_fail_over_candidate_gets_half_of_the_time() -> None:
    assert Driver(CLOUD).attempt().time_share == 0.5
    assert Driver(CLOUD, fail_over=()).attempt().time_share == 1.0


def test_request_that_arrives_too_late_is_given_up() -> None:
    driver = Driver(CLOUD)
    action = driver.send(Started(), Transition.TOO_LATE, DEADLINE_MS + GRACE_MS + 1)
    assert isinstance(action, GiveUp)
    assert isinstance(action.error, DeadlineExceeded)


def test_request_within_the_grace_is_started() -> None:
    Driver(CLOUD).send(Started(), Transition.ROUTE, DEADLINE_MS + GRACE_MS)


def test_ceiling_reroutes_to_a_cheaper_tier_as_the_first_choice() -> None:
    driver = Driver(CLOUD, ceiling=CLOUD_LAMBDA - 0.1)
    action = driver.start(Transition.REROUTE)
    assert (action.tier, action.reason) == (EDGE, Reason.ROUTE)
    assert driver.state.cost_capped


def test_ceiling_reroutes_to_the_mobile_even_without_fail_over_to_it() -> None:
    driver = Driver(CLOUD, ceiling=CHEAP_LAMBDA, fail_over=())
    action = driver.start(Transition.REROUTE)
    assert (action.tier, action.reason) == (MOBILE, Reason.ROUTE)


def test_ceiling_that_pays_for_nothing_is_an_input_error() -> None:
    action = Driver(CLOUD, ceiling=0.5).start(Transition.NO_CANDIDATE)
    assert isinstance(action, GiveUp)
    assert isinstance(action.error, InvalidInput)
    assert action.error.limit == COSTS.attempt(MOBILE, 2)


def test_open_breaker_is_skipped_as_a_fail_over() -> None:
    driver = Driver(EDGE, open_breakers=(EDGE,))
    action = driver.start(Transition.SKIP)
    assert (action.tier, action.reason) == (CLOUD, Reason.FAIL_OVER)
    assert list(driver.state.skipped) == [EDGE]


def test_open_breakers_everywhere_give_the_last_ones_error() -> None:
    driver = Driver(EDGE, open_breakers=(EDGE, CLOUD), fail_over=(CLOUD,))
    action = driver.start(Transition.NO_CANDIDATE)
    assert isinstance(action.error, TierUnreachable)
    assert "cloud" in action.error.message


def test_confident_answer_is_accepted() -> None:
    driver = Driver(MOBILE)
    driver.attempt()
    result = answer()
    assert driver.send(answered(MOBILE, result), Transition.ACCEPT) == Accept(result)
    assert driver.state.degraded_because is None
    assert driver.state.spent_lambda == COSTS.attempt(MOBILE, 2)


def escalated(driver: Driver) -> TierAnswer:
    """Bring the driver to an attempt at the cloud after an answer of the mobile."""
    driver.attempt()
    result = answer()
    action = driver.send(answered(MOBILE, result, escalate_to=CLOUD), Transition.ESCALATE)
    assert (action.tier, action.reason, action.ordinal) == (CLOUD, Reason.ESCALATE, 2)
    return result


def test_uncertain_answer_is_escalated_and_retained() -> None:
    driver = Driver(MOBILE)
    result = escalated(driver)
    assert driver.state.best_answer is result
    assert driver.state.candidates == [EDGE]  # without the mobile, which has answered


def test_answer_of_the_escalation_is_accepted() -> None:
    driver = Driver(MOBILE)
    escalated(driver)
    better = answer(0.9)
    assert driver.send(answered(CLOUD, better), Transition.ACCEPT) == Accept(better)
    assert driver.state.degraded_because is None


def test_edge_answer_may_be_escalated_again() -> None:
    driver = Driver(EDGE)
    driver.attempt()
    event = answered(EDGE, answer(), escalate_to=CLOUD)
    assert driver.send(event, Transition.ESCALATE).tier is CLOUD


@pytest.mark.parametrize(
    ("settings", "spent_ms"),
    [({}, DEADLINE_MS), ({"mode": "only-on-device"}, 10.0), ({"ceiling": CHEAP_LAMBDA}, 10.0)],
    ids=["no time left", "mode", "ceiling"],
)
def test_escalation_that_is_not_possible_accepts_the_answer(
    settings: dict[str, Any], spent_ms: float
) -> None:
    driver = Driver(MOBILE, **settings)
    driver.attempt()
    event = answered(MOBILE, answer(), escalate_to=CLOUD)
    assert isinstance(driver.send(event, Transition.ACCEPT, spent_ms), Accept)
    assert driver.state.withheld_because is None


def test_mode_replaces_the_tier_of_an_escalation() -> None:
    driver = Driver(MOBILE, mode="edge-max")
    driver.attempt()
    action = driver.send(answered(MOBILE, answer(), escalate_to=CLOUD), Transition.ESCALATE)
    assert (action.tier, action.reason) == (EDGE, Reason.ESCALATE)


def test_open_breaker_makes_an_escalation_a_fail_over() -> None:
    driver = Driver(MOBILE, open_breakers=(CLOUD,))
    driver.attempt()
    action = driver.send(answered(MOBILE, answer(), escalate_to=CLOUD), Transition.ESCALATE)
    assert (action.tier, action.reason) == (EDGE, Reason.FAIL_OVER)


def test_exhausted_budget_accepts_and_marks_the_answer() -> None:
    driver = Driver(MOBILE, take_escalation=lambda: False)
    driver.attempt()
    driver.send(answered(MOBILE, answer(), escalate_to=CLOUD), Transition.ACCEPT)
    assert driver.state.budget_exhausted
    assert driver.state.withheld_because == "budget_exhausted"


def test_escalation_without_any_available_server_degrades_the_answer() -> None:
    driver = Driver(MOBILE, open_breakers=(EDGE, CLOUD))
    driver.attempt()
    driver.send(answered(MOBILE, answer(), escalate_to=CLOUD), Transition.ACCEPT)
    assert driver.state.preferred_unavailable
    assert driver.state.degraded_because == driver.state.withheld_because == "offline"


@pytest.mark.parametrize("when", ["started", "answered"])
def test_answer_that_an_unavailable_server_would_have_given_is_degraded(when: str) -> None:
    driver = Driver(MOBILE, open_breakers=(CLOUD,))
    driver.start(preferred=CLOUD if when == "started" else None)
    event = answered(MOBILE, answer(), preferred=CLOUD if when == "answered" else None)
    driver.send(event, Transition.ACCEPT)
    assert list(driver.state.skipped) == [CLOUD]
    assert driver.state.degraded_because == "offline"


def test_failed_tier_is_failed_over_until_the_mobile_answers() -> None:
    driver = Driver(CLOUD)
    driver.attempt()
    action = driver.send(unreachable(CLOUD), Transition.FAIL_OVER)
    assert (action.tier, action.reason, action.ordinal) == (EDGE, Reason.FAIL_OVER, 2)
    action = driver.send(failed(EDGE, TierFailed("no")), Transition.FAIL_OVER)
    assert (action.tier, action.reuses) == (MOBILE, None)
    driver.send(answered(MOBILE, answer()), Transition.ACCEPT)
    assert driver.state.degraded_because == "unavailable"
    assert driver.state.failed == {CLOUD, EDGE}


def test_mobile_in_place_of_unreachable_servers_is_offline() -> None:
    driver = Driver(CLOUD, fail_over=(MOBILE,), retries=0)
    driver.attempt()
    driver.send(unreachable(CLOUD), Transition.FAIL_OVER)
    driver.send(answered(MOBILE, answer()), Transition.ACCEPT)
    assert driver.state.degraded_because == "offline"


def test_failed_escalation_falls_back_to_the_escalated_answer() -> None:
    driver = Driver(MOBILE)
    result = escalated(driver)
    assert driver.send(unreachable(CLOUD), Transition.FAIL_OVER).tier is EDGE
    action = driver.send(unreachable(EDGE), Transition.FALL_BACK)
    assert (action.tier, action.reason, action.reuses) == (MOBILE, Reason.FAIL_OVER, result)
    reused = Answered(MOBILE, result, 0.0)
    assert driver.send(reused, Transition.REUSED) == Accept(result)
    assert driver.state.degraded_because == "offline"


def test_refused_input_is_not_sent_to_another_tier() -> None:
    driver = Driver(CLOUD)
    driver.attempt()
    error = InvalidInput("text: no")
    action = driver.send(failed(CLOUD, error, Delivery.ARRIVED), Transition.GIVE_UP)
    assert action == GiveUp(error)


def test_failure_without_time_left_is_given_up() -> None:
    driver = Driver(CLOUD)
    driver.attempt()
    late = DeadlineExceeded("late")
    assert driver.send(failed(CLOUD, late), Transition.GIVE_UP, DEADLINE_MS) == GiveUp(late)


def test_given_up_request_names_every_tier() -> None:
    driver = Driver(CLOUD, fail_over=(EDGE,), retries=0)
    driver.attempt()
    driver.send(unreachable(CLOUD), Transition.FAIL_OVER)
    action = driver.send(unreachable(EDGE), Transition.GIVE_UP)
    assert action.error.message == (
        "no tier answered: the cloud is unreachable; the edge is unreachable"
    )


@pytest.mark.parametrize("error", [InvalidInput("state: no"), NotFound("path: no")])
def test_refused_hidden_state_is_followed_by_the_text(error: DimeeError) -> None:
    driver = Driver(MOBILE)
    escalated(driver)
    event = failed(CLOUD, error, Delivery.ARRIVED, resumed=True)
    action = driver.send(event, Transition.SEND_TEXT)
    assert (action.tier, action.reason, action.wait_ms) == (CLOUD, Reason.RETRY, 0.0)
    assert not driver.state.resumable
    assert driver.state.candidates == [EDGE]  # if the text fails as well


def test_busy_tier_that_refused_a_hidden_state_is_not_sent_the_text() -> None:
    driver = Driver(MOBILE, fail_over=())
    escalated(driver)
    event = failed(CLOUD, Overloaded("full"), Delivery.ARRIVED, resumed=True)
    driver.send(event, Transition.FALL_BACK)


@pytest.mark.parametrize(
    "event",
    [
        unreachable(CLOUD),
        failed(CLOUD, Overloaded("full"), Delivery.ARRIVED),
        failed(CLOUD, NotReady("starting"), Delivery.ARRIVED),
    ],
    ids=["not sent", "overloaded", "not ready"],
)
def test_safe_retries_wait_twice_as_long_each_time(event: Failed) -> None:
    driver = Driver(CLOUD, fail_over=(), jitter=lambda: 1.0)
    driver.attempt()
    waits_ms = [driver.send(event, Transition.RETRY).wait_ms for _ in range(2)]
    assert waits_ms == [50.0, 100.0]
    driver.send(event, Transition.GIVE_UP)


def test_retry_waits_at_least_as_long_as_the_tier_asks() -> None:
    driver = Driver(CLOUD, fail_over=())
    driver.attempt()
    busy = failed(CLOUD, Overloaded("full", retry_after_s=0.2), Delivery.ARRIVED)
    assert driver.send(busy, Transition.RETRY).wait_ms == 200.0


@pytest.mark.parametrize(
    ("event", "settings"),
    [
        (failed(CLOUD, TierUnreachable("broke")), {}),
        (failed(CLOUD, TierFailed("500"), Delivery.ARRIVED), {}),
        (unreachable(CLOUD), {"retries": 0}),
        (failed(CLOUD, Overloaded("full", retry_after_s=0.3), Delivery.ARRIVED), {}),
    ],
    ids=["may have been done", "failed inside", "no retries", "wait too long"],
)
def test_retry_that_is_unsafe_or_does_not_fit_is_not_made(
    event: Failed, settings: dict[str, Any]
) -> None:
    driver = Driver(CLOUD, fail_over=(), **settings)
    driver.attempt()
    driver.send(event, Transition.GIVE_UP)


def test_retry_is_not_made_beyond_the_ceiling_or_past_an_open_breaker() -> None:
    driver = Driver(CLOUD, fail_over=(), ceiling=CLOUD_LAMBDA + 1.0)
    driver.attempt()
    busy = Failed(CLOUD, Overloaded("full"), Delivery.ARRIVED, COSTS.offload_cloud)
    driver.send(busy, Transition.GIVE_UP)
    assert driver.state.cost_capped
    driver = Driver(CLOUD, fail_over=())
    driver.attempt()
    for _ in range(FAILURES):
        driver.stats.breakers[CLOUD].record_failure()
    driver.send(unreachable(CLOUD), Transition.GIVE_UP)


def test_another_server_is_asked_before_a_retry_and_the_mobile_after_it() -> None:
    driver = Driver(CLOUD)
    driver.attempt()
    assert driver.send(unreachable(CLOUD), Transition.FAIL_OVER).tier is EDGE
    assert driver.send(unreachable(EDGE), Transition.RETRY).tier is EDGE
    driver.send(unreachable(EDGE), Transition.RETRY)
    assert driver.send(unreachable(EDGE), Transition.FAIL_OVER).tier is MOBILE


def hedged(**settings: Any) -> Driver:
    driver = Driver(EDGE, hedging=True, **settings)
    driver.stats._round_trips[EDGE].extend([20.0] * 25)
    return driver


def test_attempt_is_hedged_after_the_p95_of_its_round_trips() -> None:
    driver = hedged()
    first = driver.attempt()
    assert first.hedge_after_ms == 20.0
    second = driver.send(HedgeDue(EDGE), Transition.HEDGE)
    assert (second.tier, second.reason, second.ordinal) == (CLOUD, Reason.HEDGE, 2)
    assert second.hedge_after_ms is None
    assert driver.state.candidates == [MOBILE]


def test_attempt_is_not_hedged_without_enough_round_trips_or_time() -> None:
    assert Driver(EDGE, hedging=True).attempt().hedge_after_ms is None
    action = hedged().send(Started(), Transition.ROUTE, spent_ms=DEADLINE_MS - 20.0)
    assert action.hedge_after_ms is None


@pytest.mark.parametrize(
    "settings",
    [
        {"fail_over": (MOBILE,)},
        {"ceiling": EDGE_LAMBDA + CLOUD_LAMBDA - 0.1},
        {"open_breakers": (CLOUD,)},
        {"mode": "edge-max"},
    ],
    ids=["no other server", "ceiling", "breaker", "mode"],
)
def test_hedge_without_a_second_server_waits(settings: dict[str, Any]) -> None:
    driver = hedged(**settings)
    driver.attempt()
    assert driver.send(HedgeDue(EDGE), Transition.NO_HEDGE) == Wait()


def test_cancelled_hedge_costs_and_is_no_failure() -> None:
    driver = hedged()
    driver.attempt()
    driver.send(HedgeDue(EDGE), Transition.HEDGE)
    assert driver.send(HedgeEnded(EDGE, 2.5), Transition.HEDGE_ENDED) == Wait()
    better = answer()
    assert driver.send(answered(CLOUD, better), Transition.ACCEPT) == Accept(better)
    assert driver.state.spent_lambda == 2.5 + CLOUD_LAMBDA
    assert (driver.state.failed, driver.state.errors) == (set(), [])


def test_hedged_pair_that_failed_fails_over_to_the_mobile() -> None:
    driver = hedged(retries=0)
    driver.attempt()
    driver.send(HedgeDue(EDGE), Transition.HEDGE)
    driver.send(HedgeEnded(EDGE, 0.0, TierFailed("no")), Transition.HEDGE_ENDED)
    assert driver.send(unreachable(CLOUD), Transition.FAIL_OVER).tier is MOBILE
    assert driver.state.failed == {EDGE, CLOUD}


def test_combined_error_has_the_class_and_facts_of_the_last() -> None:
    last = Overloaded("b", limit=3, retry_after_s=2.0)
    combined = combine_errors([TierFailed("a"), last])
    assert type(combined) is Overloaded
    assert (combined.limit, combined.retry_after_s) == (3, 2.0)
    assert combine_errors([last]) is last


def test_every_row_of_the_table_is_tested() -> None:
    tested = set(re.findall(r"Transition\.([A-Z_]+)", Path(__file__).read_text("utf-8")))
    assert tested == {row.name for row in Transition}


def test_no_other_file_writes_the_fields_of_the_state() -> None:
    fields = {field.name for field in dataclasses.fields(RequestState)}
    writes = []
    for file in (REPOSITORY / "mobile_client").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
                owner = ast.unparse(node.value)
                if owner.split(".")[-1] in ("state", "_state") and node.attr in fields:
                    writes.append((file.name, ast.unparse(node)))
    assert writes == []
