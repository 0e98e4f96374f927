"""Rows of answers: columns stay aligned for pairs, long labels and other alphabets."""

from __future__ import annotations

import unicodedata
from io import BytesIO, TextIOWrapper

import pytest

from mobile_client.cli.render import MAX_LABEL_WIDTH, TEXT_WIDTH, header, label_width, row
from shared.domain import Tier
from shared.errors import InvalidInput
from shared.terminal import displayed
from shared.wire import Classification, CostReport


def answer(label: str) -> Classification:
    cost = CostReport(
        cost_lambda=3.0, all_cloud_lambda=18.0, cost_usd=0.0, energy_mj=0.0, price_book="x"
    )
    return Classification(
        request_id="r", label=label, probabilities={label: 0.9}, confidence=0.9, tier=Tier.EDGE,
        exit_layer=1, policy="edge", tokens=5, decision_ms=0.1, total_ms=1.0, bundle_id="b",
        attempts=[], cost=cost,
    )  # fmt: skip


def columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


@pytest.mark.parametrize("label", ["gut", "très bien", "中立", "not_equivalent", "x" * 60])
@pytest.mark.parametrize("texts", [("fine", None), ("雨" * 60, "a" * 60), ("a\n\tb", "é")])
def test_columns_are_aligned(label: str, texts: tuple[str, str | None]) -> None:
    width = label_width(["gut", label])
    assert 10 <= width <= MAX_LABEL_WIDTH
    text, pair = texts
    found = row(text, answer(label), pair, width)
    head = header(width)
    before, after = found.split(" 90.0%")
    assert columns(before) + len(" 90.0%") == head.index("conf") + len("conf")
    assert after.index("edge") == head[head.index("conf") + len("conf") :].index("tier")
    assert columns(before) == TEXT_WIDTH + 2 + width + 1
    if pair is not None:
        assert " | " in before


def test_control_characters_are_not_printed() -> None:
    found = row("a\x1b[31m", answer("b\x9b"), "c\x07", 10)
    assert not any(unicodedata.category(char) == "Cc" for char in found)


def test_error_takes_the_place_of_the_answer() -> None:
    assert row("a", InvalidInput("line 1: is empty"), "b").endswith(
        "  invalid_input: line 1: is empty"
    )


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "shift-jis"])
@pytest.mark.parametrize("text", ["café", "é" * 60, "良い映画" * 9, "a" * 39, "a" * 37 + "良"])
def test_columns_stay_aligned_in_every_encoding(
    text: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", TextIOWrapper(BytesIO(), encoding=encoding))
    line = displayed(row(text, InvalidInput("away")))
    cell = line[: line.index("invalid_input")]
    assert columns(cell) == TEXT_WIDTH + 2
