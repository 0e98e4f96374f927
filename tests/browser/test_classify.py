"""A text on the page: its way through the tiers, with the numbers that the ledger has."""

from __future__ import annotations

import re
import time
from contextlib import suppress

import pytest
from playwright.sync_api import Page, expect

from shared.domain import Side, Tier
from shared.errors import NotFound
from shared.ledger.client import LedgerClient
from shared.ledger.entry import LedgerEntry
from tests.support.browser import OpenPage, figure, shown, text_of

WAIT_S = 60.0
TEXT = "every plot turn is visible from a mile away, yet it is not boring"


def recorded(ledger: LedgerClient, request_id: str) -> list[LedgerEntry]:
    """Return the caller's entries of a request, once its last one is in the ledger."""
    until = time.monotonic() + WAIT_S
    while True:
        with suppress(NotFound):
            entries = ledger.request_entries(request_id)
            callers = [entry for entry in entries if entry.side is Side.CALLER]
            if any(entry.final for entry in callers):
                return sorted(callers, key=lambda entry: entry.ordinal)
        assert time.monotonic() < until, "the ledger does not get the request"
        time.sleep(0.05)


@pytest.mark.parametrize("policy", ["mobile", "edge", "cloud", "cascade-routing"])
def test_the_page_shows_the_numbers_of_the_ledger(
    open_page: OpenPage, ledger: LedgerClient, policy: str
) -> None:
    one = open_page()
    result = one.classify(TEXT, policy)["result"]
    entries, last = recorded(ledger, result["request_id"]), result["attempts"][-1]["tier"]
    answer = text_of(one.page.locator("#answer"))
    assert text_of(one.page.locator("#answer-label")) == entries[-1].label
    assert text_of(one.page.locator("#answer-tier")) == entries[-1].tier == last
    assert f"at exit {entries[-1].exit_layer}" in answer
    cost = sum(entry.cost_lambda or 0 for entry in entries)
    assert figure(cost, 2, "λ") in answer
    assert f"all-cloud {figure(entries[-1].all_cloud_lambda or 0, 2, 'λ')}" in answer
    steps = one.page.locator("#steps > li")
    assert steps.count() == len(entries)
    for index, entry in enumerate(entries):
        check_step(text_of(steps.nth(index)), entry)


def check_step(step: str, entry: LedgerEntry) -> None:
    """Check that a step shows the figures of an answered entry."""
    confidence, round_trip_ms = entry.confidence, entry.round_trip_ms
    assert confidence is not None
    assert round_trip_ms is not None
    assert f"{entry.label} at exit {entry.exit_layer}" in step
    assert f"exit {entry.exit_layer} {figure(100 * confidence, 1, '%')}" in step
    assert f"Time: {figure(round_trip_ms, 1, 'ms')}" in step
    for name in ("queue", "compute", "network"):
        assert f"{name} {figure(getattr(entry, f'{name}_ms') or 0, 1, 'ms')}" in step
    assert f"sent {figure(entry.sent_bytes, 0, 'B')}" in step
    assert f"received {figure(entry.received_bytes, 0, 'B')}" in step
    assert f"Cost: {figure(entry.cost_lambda or 0, 2, 'λ')}" in step
    if entry.tier is Tier.MOBILE:  # a confidence after each of its exits
        exits = re.findall(r"exit (\d+) [\d.]+ %", step)
        assert exits == [str(layer) for layer in range(1, (entry.exit_layer or 0) + 1)]


def test_the_page_says_why_the_tier_was_chosen(open_page: OpenPage) -> None:
    one = open_page()
    explanation = one.classify(TEXT, "cascade-routing")["explanation"]
    why = one.page.locator("#why")
    chosen = explanation["attempts"][0]["tier"]
    expect(why.locator("h3")).to_have_text(f"Why the {chosen} was chosen")
    assert explanation["why"][1:] in text_of(why)
    decides = text_of(why.locator(".figure.decides"))
    assert decides.startswith("Expected value – decides")
    for tier in explanation["tiers"]:
        assert f"{100 * tier['expected_value']:+.2f} points" in decides
    headings = why.locator("h4").all_inner_texts()
    assert {"P(right)", "P(≥ α)", "Expected cost", "Delay", "Recorded cost"} <= set(headings)
    for number in range(len(headings)):
        definition = why.locator(".figure").nth(number).locator("p")
        assert len(text_of(definition)) > 20, "every figure is defined"


def test_a_centroid_policy_decides_by_distance(open_page: OpenPage) -> None:
    one = open_page()
    explanation = one.classify(TEXT, "dimee-fixed")["explanation"]
    decides = text_of(one.page.locator("#why .figure.decides"))
    assert decides.startswith("Distance – decides")
    for tier in explanation["tiers"]:
        assert shown(tier["distance"], 4) in decides


def layers_done(page: Page, tier: str) -> int:
    """Return the number of layers that the drawing shows as executed on a tier."""
    return page.locator(f'#journey .node[data-tier="{tier}"] .cell.done').count()


def test_the_drawing_shows_the_layers_and_the_way(open_page: OpenPage) -> None:
    one = open_page()
    assert layers_done(one.page, "cloud") == 0
    result = one.classify(TEXT, "cloud")["result"]
    assert layers_done(one.page, "cloud") == result["exit_layer"]
    assert layers_done(one.page, "mobile") == layers_done(one.page, "edge") == 0
    drawing = one.page.locator("#journey svg")
    expect(drawing.locator('.path.used[data-tier="cloud"]')).to_have_count(1)
    expect(drawing.locator('.path.used[data-tier="edge"]')).to_have_count(0)
    label = drawing.get_attribute("aria-label") or ""
    assert f"cloud answered {result['label']} at exit {result['exit_layer']}" in label


def test_the_text_moves_along_the_link(open_page: OpenPage) -> None:
    one = open_page(motion=True)
    one.page.evaluate(
        """() => {
          window.dots = 0;
          new MutationObserver((changes) => {
            for (const { addedNodes } of changes)
              for (const node of addedNodes) if (node.classList?.contains("dot")) window.dots += 1;
          }).observe(document.querySelector("#journey"), { childList: true, subtree: true });
        }"""
    )
    one.classify(TEXT, "edge")
    expect(one.page.locator("#steps > li.later")).to_have_count(0)
    assert one.page.evaluate("window.dots") == 2, "there and back"


def test_steps_can_be_shown_one_by_one(open_page: OpenPage) -> None:
    one = open_page()
    result = one.classify(TEXT, "cascade-routing")["result"]
    if len(result["attempts"]) < 2:
        pytest.skip("the policy has not escalated this text")
    one.page.click("#next-step")
    expect(one.page.locator("#steps > li.later")).to_have_count(len(result["attempts"]) - 1)
    one.page.click("#next-step")
    expect(one.page.locator("#steps > li.later")).to_have_count(len(result["attempts"]) - 2)


def test_a_text_that_is_too_expensive_has_a_clear_error(open_page: OpenPage) -> None:
    one = open_page()
    answer = one.classify(TEXT, "cloud", ceiling="0.5")
    if "error" not in answer:
        pytest.skip("an answer at this ceiling is possible")
    expect(one.page.locator("#classify-error")).to_contain_text(answer["error"]["message"])
    one.statuses.clear()


def test_a_text_is_never_read_as_html(open_page: OpenPage) -> None:
    one = open_page()
    one.classify('<img src=x onerror="document.title=1"> <b>a fine film</b>', "mobile")
    one.page.click("#open-record")
    expect(one.page.locator("#record-body table").first).to_be_visible()
    assert one.page.locator("#main img, #main b b, #record img").count() == 0
    assert one.page.title() == "dimee"
