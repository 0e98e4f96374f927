"""Verdicts on the claim and on comparisons; effects of γ and prices."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from lab.reports.claim import HOLDS, UNCERTAIN, constant_exits, tasks_reached, verdict
from lab.reports.comparisons import LOST, TIED, WON, Case, all_cases, count
from lab.reports.load import PAPER_METHODS, Result, load_results
from lab.reports.paper import CLAIMED_DROP, CLAIMED_SAVING
from lab.reports.sensitivity import (
    break_even_fee,
    cost_at_fee,
    first_saving_fee,
    price_reactions,
)
from tests.support.results_data import DATA, PUBLISHED, SAMPLE, facts_of


@pytest.fixture
def facts() -> Any:
    return facts_of(SAMPLE)


def test_verdict_depends_on_cost_accuracy_and_metric(facts: dict[str, Any]) -> None:
    result, row = Result(facts), facts["methods"]["dimee-fixed"]
    row |= {"cost_change": -50.0, "cost_change_interval": [-52.0, -48.0]}
    row |= {"against_cloud": 0.0, "against_cloud_interval": [-0.2, 0.2]}
    row["metric"] = facts["methods"]["cloud"]["metric"]
    assert verdict(result, "dimee-fixed") == HOLDS
    assert tasks_reached({"cola": result}, ("dimee-fixed",), certain=True) == ["CoLA"]
    row["against_cloud_interval"] = [-0.9, 0.9]
    assert verdict(result, "dimee-fixed") == UNCERTAIN
    assert tasks_reached({"cola": result}, ("dimee-fixed",)) == ["CoLA"]
    assert tasks_reached({"cola": result}, ("dimee-fixed",), certain=True) == []
    row |= {"against_cloud_interval": [-0.2, 0.2], "cost_change_interval": [-57.0, -42.9]}
    assert verdict(result, "dimee-fixed") == UNCERTAIN
    row["cost_change"] = -CLAIMED_SAVING
    assert verdict(result, "dimee-fixed") == "no: saves too little"
    row["metric"] -= CLAIMED_DROP + 0.01
    assert verdict(result, "dimee-fixed") == "no: saves too little, loses too much"
    row["cost_change"] = -50.0
    assert verdict(result, "dimee-fixed") == "no: loses too much"


def test_cost_at_another_fee_in_closed_form(facts: dict[str, Any]) -> None:
    """Half to the cloud at 18 λ and half to the edge at 8.5: 13.25 λ; at γ = 1, 6.25 of 4."""
    row = facts["methods"]["dimee-fixed"]
    row |= {"cost_lambda": 13.25, "shares": {"mobile": 0.0, "edge": 0.5, "cloud": 0.5}}
    result = Result(facts)
    assert cost_at_fee(result, 15.0) == pytest.approx(100 * (13.25 / 18 - 1))
    assert cost_at_fee(result, 1.0) == pytest.approx(56.25)
    even = break_even_fee(result)
    assert even == pytest.approx(5.5)
    assert cost_at_fee(result, 5.5) == pytest.approx(0.0)
    row["shares"] = {"mobile": 0.0, "edge": 0.0, "cloud": 1.0}
    assert break_even_fee(result) is None


def test_cost_at_another_fee_agrees_with_the_sweep() -> None:
    """They agree at every γ at which the sweep chose the preset's α."""
    for result in load_results(DATA):
        for fee, point in result["by_cloud_fee"].items():
            if abs(point["alpha"] - result["alpha"]) < 1e-3:
                swept = point["methods"]["dimee-fixed"]["cost_change"]
                assert cost_at_fee(result, float(fee)) == pytest.approx(swept, abs=0.05)


def test_first_saving_fee_price_reactions_and_constant_exits(facts: dict[str, Any]) -> None:
    result = Result(facts)
    saving = {fee: p["methods"]["dimee-fixed"] for fee, p in facts["by_cloud_fee"].items()}
    for row in saving.values():
        row["cost_change"] = 0.0
    assert first_saving_fee(result) is None
    saving["9.0"]["cost_change"] = saving["30.0"]["cost_change"] = -1.0
    assert first_saving_fee(result) == "9.0"
    for factors in facts["by_price"].values():
        for factor in factors:
            factors[factor] = copy.deepcopy(factors["1.0"])
    assert price_reactions(result) == (16, 0, 0)
    facts["by_price"]["edge_layer"]["4.0"]["alpha"] += 0.1
    facts["by_price"]["mobile_layer"]["4.0"]["methods"]["dimee-fixed"]["accuracy"] += 1
    assert price_reactions(result) == (16, 1, 1)
    facts["exits"]["largest_answer_share"] = [1.0, 0.98, 0.9, 0.5, 0.5, 0.99]
    assert constant_exits(result) == [1, 2, 6]


def comparison(accuracy: tuple[float, float], cost: tuple[float, float]) -> dict[str, Any]:
    return {
        "accuracy_difference": sum(accuracy) / 2, "accuracy_interval": list(accuracy),
        "cost_difference": sum(cost) / 2, "cost_interval": list(cost), "method_cost": 10.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("accuracy", "cost", "verdict", "reason"),
    [
        ((-1, 1), (-2, -1), WON, ""),
        ((0.5, 1), (-2, -1), WON, ""),
        ((-1, 1), (-1, 1), TIED, ""),
        ((0, 0), (0, 0), TIED, ""),
        ((0.5, 1), (-1, 1), TIED, ""),
        ((-1, 0), (-2, -1), WON, ""),
        ((-1, -0.1), (-2, -1), LOST, "less accurate"),
        ((-1, 1), (0.1, 1), LOST, "more expensive"),
        ((0.5, 1), (0.1, 1), LOST, "more expensive, more accurate"),
        ((-1, -0.1), (0.1, 1), LOST, "less accurate, more expensive"),
    ],
)
def test_verdict_and_reason_of_a_comparison(
    facts: dict[str, Any],
    accuracy: tuple[float, float],
    cost: tuple[float, float],
    verdict: str,
    reason: str,
) -> None:
    case = Case(Result(facts), 3.0, "bert", comparison(accuracy, cost))
    assert (case.verdict, case.reason) == (verdict, reason)


def test_page_lists_every_comparison_once_by_verdict() -> None:
    cases = all_cases(load_results(DATA))
    page = (PUBLISHED / "comparisons.md").read_text(encoding="utf-8")
    lost, tied, won = count(cases)
    assert lost + tied + won == len(cases)
    sections = re.split(r"\n## (Lost|Tied|Won): ", page)
    assert sections[1::2] == ["Lost", "Tied", "Won"]
    listed = [len(re.findall(r"^\| (?!run |---)", part, re.MULTILINE)) for part in sections[2::2]]
    assert listed == [lost, tied, won]


def test_every_run_has_comparisons_with_every_method_at_every_fee() -> None:
    for result in load_results(DATA):
        comparisons = result["cascade_routing"]["comparisons"]
        assert [float(fee) for fee in comparisons] == [3, 5, 9, 15, 20, 30]
        assert all(set(rows) == set(PAPER_METHODS) for rows in comparisons.values())
