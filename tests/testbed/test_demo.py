"""``dimee demo`` sends one sentence after the other and prints a row for each."""

from __future__ import annotations

import json

import httpx
import pytest

from shared.domain import InputText, Tier
from shared.errors import Overloaded
from shared.wire import Classification, ClassifyItem, ClassifyResponse, CostReport
from testbed.demo import send_in_turn
from testbed.texts import sample_sentences


def answer(number: int) -> Classification:
    return Classification(
        request_id=f"r{number}",
        label="positive",
        probabilities={"negative": 0.1, "positive": 0.9},
        confidence=0.9,
        tier=Tier.MOBILE,
        exit_layer=1,
        policy="cascade-routing",
        tokens=5,
        decision_ms=0.1,
        total_ms=1000.0 + number,
        bundle_id="b",
        attempts=[],
        cost=CostReport(
            cost_lambda=3.0, all_cloud_lambda=18.0, cost_usd=0.0, energy_mj=0.0, price_book="x"
        ),
    )


def client(sent: list[list[str]], error_at: int = -1, status: int = 200) -> httpx.Client:
    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content)["texts"])
        if len(sent) - 1 == error_at:
            payload = {"code": "overloaded", "message": "busy"}
            if status != 200:
                return httpx.Response(status, json={"error": payload})
            item = ClassifyItem(error=payload)
        else:
            item = ClassifyItem(result=answer(len(sent) - 1))
        content = ClassifyResponse(items=[item]).model_dump_json()
        return httpx.Response(200, content=content)

    return httpx.Client(base_url="http://mobile", transport=httpx.MockTransport(handle))


def test_each_sentence_is_one_request_and_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    sent: list[list[str]] = []
    texts = sample_sentences()
    with client(sent) as http:
        assert not send_in_turn(http, [InputText(text) for text in texts], 10)
    assert sent == [[text] for text in texts]
    rows = capsys.readouterr().out.splitlines()
    assert rows.pop(0).split()[:2] == ["text", "label"]
    assert len(rows) == len(texts)
    assert all(f"{1000.0 + number:.1f}" in line for number, line in enumerate(rows))


def test_sentence_without_answer_is_a_row_and_a_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sent: list[list[str]] = []
    with client(sent, error_at=1) as http:
        assert send_in_turn(http, [InputText(text) for text in "abc"], 10)
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 1 + 3
    assert "overloaded: busy" in rows[2]


def test_refused_request_ends_the_demo() -> None:
    with client([], error_at=0, status=429) as http, pytest.raises(Overloaded):
        send_in_turn(http, [InputText("a")], 10)


def test_labelled_pairs_show_which_answers_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    bodies: list[dict[str, object]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        item = ClassifyItem(result=answer(1))
        return httpx.Response(200, content=ClassifyResponse(items=[item]).model_dump_json())

    texts = [
        InputText("first", "second", "positive"),
        InputText("third", "fourth", "negative"),
        InputText("fifth", "sixth"),
    ]
    with httpx.Client(base_url="http://mobile", transport=httpx.MockTransport(handle)) as http:
        assert not send_in_turn(http, texts, 10)
    assert bodies[0] == {"texts": ["first"], "pairs": ["second"]}
    header, *rows, chosen, verdict = capsys.readouterr().out.splitlines()
    assert header.endswith("answer")
    assert [row.rsplit("  ", 1)[1] for row in rows[:2]] == ["right", "wrong: negative"]
    assert "fifth" in rows[2]
    assert "| sixth" in rows[2]
    assert chosen == "answers not from the tier that the policy chose: 0 of 3"
    assert verdict == "right: 1 of 2 labelled texts (50.0%)"
