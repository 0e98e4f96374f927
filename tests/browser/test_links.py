"""A link is cut on the page, another tier answers, and the link is restored."""

from __future__ import annotations

from playwright.sync_api import expect

from testbed.load.target import LoadTarget
from tests.support.browser import OpenPage, WatchedPage, shown, text_of

TEXT = "a gripping, funny film"


def press(one: WatchedPage, button: str) -> None:
    """Press a button of a link and wait for the gateway's answer."""
    with one.page.expect_response("**/dashboard/api/links/*") as answer:
        one.page.click(f'[data-link="{button}"]')
    assert answer.value.ok, answer.value.text()


def test_cut_fail_over_and_restore(open_page: OpenPage, target: LoadTarget) -> None:
    one = open_page()
    assert one.classify(TEXT, "edge")["result"]["tier"] == "edge"

    press(one, "mobile-edge reset")
    assert target.links["mobile-edge"].report()["spec"] == "reset"
    expect(one.page.locator('[data-spec="mobile-edge"]')).to_contain_text("cut, connections break")
    expect(one.page.locator("#journey .link-label.cut")).to_have_count(1)
    result = one.classify(TEXT, "edge")["result"]
    assert result["tier"] != "edge"
    assert result["failed_over"] or result["skipped"]
    expect(one.page.locator("#answer-tier")).to_have_text(result["tier"])
    expect(one.page.locator("#answer .badge").first).to_be_visible()
    expect(one.page.locator('#tier-rows tr[data-tier="edge"] .badge.bad').first).to_be_visible()
    expect(one.page.locator("#journey .node.edge.down")).to_have_count(1)
    events = one.page.locator("#events")
    expect(events).to_contain_text("Link mobile-edge: cut, connections break")
    expect(events).to_contain_text("Edge is")

    press(one, "mobile-edge restore")
    expect(one.page.locator('[data-spec="mobile-edge"]')).to_have_text("wifi")
    expect(one.page.locator('#tier-rows tr[data-tier="edge"]')).to_contain_text("closed")
    expect(one.page.locator("#journey .node.edge.down")).to_have_count(0)
    assert one.classify(TEXT, "edge")["result"]["tier"] == "edge"


def test_degraded_link_costs_time(open_page: OpenPage) -> None:
    one = open_page()
    press(one, "mobile-cloud 4g")
    expect(one.page.locator('[data-link="mobile-cloud 4g"]')).to_have_attribute(
        "aria-pressed", "true"
    )
    result = one.classify(TEXT, "cloud", deadline="20000")["result"]
    network_ms = result["attempts"][-1]["network_ms"]
    assert network_ms > 50, "4g has a round trip of 70 ms"
    assert f"4g · {shown(network_ms, 1)} ms" in text_of(one.page.locator("#journey"))
    press(one, "mobile-cloud restore")


def test_failed_request_shows_its_attempts(open_page: OpenPage) -> None:
    one = open_page()
    for hop in ("mobile-edge", "mobile-cloud"):
        press(one, f"{hop} reset")
    answer = one.classify(TEXT, "edge", deadline="20000")
    press(one, "mobile-edge restore")
    press(one, "mobile-cloud restore")
    # the mobile answers in place of the servers
    assert answer["result"]["tier"] == "mobile"
    assert answer["result"]["degraded"]
    expect(one.page.locator("#answer")).to_contain_text("degraded")
    row = one.page.locator("#request-rows tr").first
    expect(row).to_contain_text(f"{answer['result']['label']}, offline")
    expect(row.locator(".error")).to_have_count(0)
    expect(one.page.locator("#events")).to_contain_text("Mobile answered in place of another tier")
    expect(one.page.locator("#events")).not_to_contain_text("A request failed")
