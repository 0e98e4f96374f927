"""Screen of ``dimee explain``: each figure is defined, and the one that decides is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mobile_client.cli.explain import DECIDED_BY, LEGEND, lines
from mobile_client.insight.explanation import AttemptView, Explanation, TierView
from shared.domain import Difficulty, Tier

ATTEMPT = AttemptView(1, Tier.MOBILE, "route", "answered", "kept", label="positive", exit_layer=2)
FULL = TierView(
    Tier.MOBILE,
    right=0.9,
    confident=0.5,
    escalates_confident={Tier.CLOUD: 0.1},
    escalates_not_confident={Tier.CLOUD: 0.5},
    cost_lambda=3.0,
    min_lambda=1.0,
    max_lambda=6.0,
    delay_ms=1.0,
    waiting_lambda=0.5,
    expected_value=0.1,
    difficulty=Difficulty.EASY,
    distance=0.25,
    recorded_lambda=3.0,
    recorded_usd=1e-6,
)


def explanation(view: TierView, **facts: Any) -> Explanation:
    tiers = [view, replace(view, tier=Tier.EDGE), replace(view, tier=Tier.CLOUD)]
    attempts = [ATTEMPT]
    return Explanation("r", "p", "b", 0.9, None, "because", tiers, attempts, [], **facts)


def test_every_column_is_defined_below_the_table() -> None:
    printed = lines(explanation(FULL, decided_by="expected_value"))
    (header,) = (line for line in printed if line.startswith("first tier"))
    for title in LEGEND:
        assert title in header
        assert any(line.startswith(f"  {title:<10}  {LEGEND[title]}") for line in printed)


@pytest.mark.parametrize(
    ("decided_by", "says"),
    [
        ("expected_value", "decides is the value: the highest is chosen"),
        ("distance", "decides is the distance: the lowest is chosen"),
        (None, "No figure of the table decides"),
    ],
)
def test_deciding_figure_is_named(decided_by: Any, says: str) -> None:
    printed = "\n".join(lines(explanation(FULL, decided_by=decided_by)))
    assert says in printed
    assert sum(sentence in printed for sentence in DECIDED_BY.values()) == 1
    assert "mobile ◄" in printed


def test_names_from_data_stay_in_their_line() -> None:
    evil = "a\nb\x1b[2J\u202e"
    plain = lines(explanation(FULL))
    made = replace(
        explanation(FULL), policy=evil, attempts=[replace(ATTEMPT, label=evil)], notes=[evil]
    )
    printed = lines(made)
    assert len(printed) == len(plain) + 1
    assert not any(char in line for line in printed for char in "\n\x1b\u202e")


def test_points_of_a_lambda_give_the_figures_below_them() -> None:
    printed = lines(replace(explanation(FULL), cost_weight=0.000293))
    assert "One λ counts as 0.0293 points of the probability of a right answer (Λ)." in printed
