"""The state of one request, driven through every row of its table, without any I/O."""

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
    Started,
)
from mobile_client.dispatch.request_state import (
    GRACE_MS,
    RequestState,
    Transition,
    combine_errors,
)
from mobile_client.local.runtime import TierAnswer
from mobile_client.resilience.circuit_breaker import FAILURES
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
from tests.support.paths import REPOSITORY
from tests.support.request_state import (
    CHEAP_LAMBDA,
    CLOUD,
    CLOUD_LAMBDA,
    COSTS,
    DEADLINE_MS,
    EDGE,
    MOBILE,
    Driver,
    answer,
    answered,
    failed,
    gone,
)


@pytest.mark.parametrize("tier", Tier)
def test_routed_tier_is_attempted_first(tier: Tier) -> None:
    driver = Driver(tier)
    action = driver.attempt()
    assert (action.tier, action.reason, action.ordinal) == (tier, Reason.ROUTE, 1)
    assert (action.wait_ms, action.hedge_after_ms, action.reuses) == (0.0, None, None)
    others = [one for one in (EDGE, CLOUD, MOBILE) if one is not tier]
    assert driver.state.candidates == ([] if tier is MOBILE else others)


def test_tier_with_a_stand_in_gets_half_of_the_time() -> None:
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


def test_ceiling_reroutes_to_the_mobile_even_if_it_is_no_stand_in() -> None:
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
    assert driver.state.candidates == [EDGE]  # not the mobile, which has answered


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


def test_exhausted_budget_accepts_the_answer_and_says_so() -> None:
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
    action = driver.send(gone(CLOUD), Transition.FAIL_OVER)
    assert (action.tier, action.reason, action.ordinal) == (EDGE, Reason.FAIL_OVER, 2)
    action = driver.send(failed(EDGE, TierFailed("no")), Transition.FAIL_OVER)
    assert (action.tier, action.reuses) == (MOBILE, None)
    driver.send(answered(MOBILE, answer()), Transition.ACCEPT)
    assert driver.state.degraded_because == "unavailable"
    assert driver.state.failed == {CLOUD, EDGE}


def test_mobile_in_place_of_unreachable_servers_is_offline() -> None:
    driver = Driver(CLOUD, fail_over=(MOBILE,), retries=0)
    driver.attempt()
    driver.send(gone(CLOUD), Transition.FAIL_OVER)
    driver.send(answered(MOBILE, answer()), Transition.ACCEPT)
    assert driver.state.degraded_because == "offline"


def test_failed_escalation_falls_back_to_the_answer_at_hand() -> None:
    driver = Driver(MOBILE)
    result = escalated(driver)
    assert driver.send(gone(CLOUD), Transition.FAIL_OVER).tier is EDGE
    action = driver.send(gone(EDGE), Transition.FALL_BACK)
    assert (action.tier, action.reason, action.reuses) == (MOBILE, Reason.FAIL_OVER, result)
    reused = Answered(MOBILE, result, 0.0)
    assert driver.send(reused, Transition.REUSED) == Accept(result)
    assert driver.state.degraded_because == "offline"


def test_refused_input_is_not_taken_to_another_tier() -> None:
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
    driver.send(gone(CLOUD), Transition.FAIL_OVER)
    action = driver.send(gone(EDGE), Transition.GIVE_UP)
    assert action.error.message == ("no tier answered: the cloud is gone; the edge is gone")


@pytest.mark.parametrize("error", [InvalidInput("state: no"), NotFound("path: no")])
def test_refused_hidden_state_is_followed_by_the_text(error: DimeeError) -> None:
    driver = Driver(MOBILE)
    escalated(driver)
    event = failed(CLOUD, error, Delivery.ARRIVED, resumed=True)
    action = driver.send(event, Transition.SEND_TEXT)
    assert (action.tier, action.reason, action.wait_ms) == (CLOUD, Reason.RETRY, 0.0)
    assert not driver.state.resumable
    assert driver.state.candidates == [EDGE]  # should the text fail as well


def test_busy_tier_that_refused_a_hidden_state_is_not_sent_the_text() -> None:
    driver = Driver(MOBILE, fail_over=())
    escalated(driver)
    event = failed(CLOUD, Overloaded("full"), Delivery.ARRIVED, resumed=True)
    driver.send(event, Transition.FALL_BACK)


@pytest.mark.parametrize(
    "event",
    [
        gone(CLOUD),
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
        (gone(CLOUD), {"retries": 0}),
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
        driver.stats.replicas[CLOUD][0].breaker.record_failure()
    driver.send(gone(CLOUD), Transition.GIVE_UP)


def test_another_server_is_asked_before_a_retry_and_the_mobile_after_it() -> None:
    driver = Driver(CLOUD)
    driver.attempt()
    assert driver.send(gone(CLOUD), Transition.FAIL_OVER).tier is EDGE
    assert driver.send(gone(EDGE), Transition.RETRY).tier is EDGE
    driver.send(gone(EDGE), Transition.RETRY)
    assert driver.send(gone(EDGE), Transition.FAIL_OVER).tier is MOBILE


def test_combined_error_has_the_class_and_facts_of_the_last() -> None:
    last = Overloaded("b", limit=3, retry_after_s=2.0)
    combined = combine_errors([TierFailed("a"), last])
    assert type(combined) is Overloaded
    assert (combined.limit, combined.retry_after_s) == (3, 2.0)
    assert combine_errors([last]) is last
    assert combine_errors([last, last, last]) is last


def test_broken_idle_connection_is_replaced_once_by_a_fresh_one() -> None:
    driver = Driver(EDGE)
    driver.attempt()
    broke = failed(EDGE, TierUnreachable("reset"), reused_connection_broke=True)
    again = driver.send(broke, Transition.RECONNECT)
    assert (again.tier, again.reason, again.wait_ms) == (EDGE, Reason.RETRY, 0.0)
    assert again.fresh_connection
    assert driver.send(broke, Transition.FAIL_OVER).fresh_connection is False


def test_no_connection_is_replaced_after_the_deadline() -> None:
    driver = Driver(EDGE)
    driver.attempt()
    broke = failed(EDGE, TierUnreachable("reset"), reused_connection_broke=True)
    driver.send(broke, Transition.GIVE_UP, DEADLINE_MS)


def test_caller_is_not_blamed_for_a_hidden_state_that_was_refused_too_late() -> None:
    driver = Driver(CLOUD, fail_over=())
    driver.attempt()
    event = failed(CLOUD, InvalidInput("state: no"), Delivery.ARRIVED, resumed=True)
    action = driver.send(event, Transition.GIVE_UP, DEADLINE_MS)
    assert isinstance(action.error, TierFailed)


def test_every_row_of_the_table_is_tested() -> None:
    files = Path(__file__).parent.glob("test_request_state*.py")
    text = "".join(file.read_text("utf-8") for file in files)
    tested = set(re.findall(r"Transition\.([A-Z_]+)", text))
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
