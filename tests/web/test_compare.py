"""The comparison of texts: a small one in node, and what it finds where answers differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.web.case_texts import SENTENCES
from tests.web.compare import Answer, compare, differences_of
from tests.web.compare_report import Comparison, report
from tests.web.runtimes import node

EXPECTED = Answer(
    ids=[101, 7, 102],
    tiers=["mobile", "edge"],
    closest=[0.2, 1e-5],
    exits=[{"label": 1, "exit_layer": 1}, {"label": 1, "exit_layer": 2}],
    confidences=[0.8334, 0.51],
)


def found(**changes: Any) -> dict[str, Any]:
    """Return JavaScript's answer, which equals Python's except for the changes."""
    same = {
        "ids": EXPECTED.ids,
        "tiers": EXPECTED.tiers,
        "exits": EXPECTED.exits,
        "confidences": EXPECTED.confidences,
    }
    return same | changes


def explanations(**changes: Any) -> list[str | None]:
    return [one.explanation for one in differences_of(0, EXPECTED, found(**changes))]


def test_texts_in_node_differ_by_rounding_only() -> None:
    node()
    result = compare(SENTENCES[::3], "node")
    assert result.texts == len(SENTENCES[::3])
    assert [one for one in result.differences if one.explanation is None] == []
    assert result.largest_confidence_difference < 0.03
    assert f"| texts | {result.texts} |" in report(result, "validation.jsonl", "sst2-minilm")


def test_equal_answers_have_no_difference() -> None:
    assert explanations() == []


def test_a_difference_on_both_sides_of_the_threshold_is_explained() -> None:
    later = [{"label": 1, "exit_layer": 2}, {"label": 1, "exit_layer": 2}]
    (why,) = explanations(exits=later, confidences=[0.8332, 0.51])
    assert why is not None
    assert "0.833400 in Python, 0.833200 in JavaScript" in why


@pytest.mark.parametrize(
    "changes",
    [
        {"ids": [101, 8, 102]},
        {"tiers": ["cloud", "edge"]},
        {"exits": [{"label": 1, "exit_layer": 2}, {"label": 1, "exit_layer": 2}]},
        {"exits": [{"label": 0, "exit_layer": 1}, {"label": 1, "exit_layer": 2}]},
        {
            "exits": [{"label": 1, "exit_layer": 2}, {"label": 1, "exit_layer": 2}],
            "confidences": [0.7, 0.51],
        },
    ],
    ids=["tokens", "tier", "exit", "label", "confidence"],
)
def test_other_differences_are_not_explained(changes: dict[str, Any]) -> None:
    assert explanations(**changes) == [None]


def test_a_tie_explains_another_tier_or_label() -> None:
    (tier,) = explanations(tiers=["mobile", "mobile"])
    assert tier is not None
    tie = replace(EXPECTED, confidences=[0.9, 0.501])
    other = found(
        exits=[{"label": 1, "exit_layer": 1}, {"label": 0, "exit_layer": 2}],
        confidences=[0.9, 0.502],
    )
    (label,) = differences_of(3, tie, other)
    assert "tie at 0.5" in str(label.explanation)
    shown = report(replace(compare_result(), differences=[label]), "f", "b")
    assert "| 4 | answer at α" in shown


def compare_result() -> Comparison:
    """Return a comparison without differences."""
    return Comparison(1, "node", "x86_64", [0.8], ["dimee-fixed"], [], 0.0, 0.1, 1.0)
