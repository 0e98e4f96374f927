"""The list of the last requests, the record of one, and what today's requests would have cost."""

from __future__ import annotations

import json

from playwright.sync_api import expect

from shared.ledger.client import LedgerClient
from tests.support.browser import OpenPage, WatchedPage, shown, text_of
from tests.support.otlp_receiver import ReceivedSpan, Receiver

TEXT = "a gripping, funny film"


def tiers_listed(one: WatchedPage) -> set[str]:
    """Return the tiers in the list of requests."""
    cells = one.page.locator("#request-rows .tier").all_inner_texts()
    return set(cells)


def test_a_request_appears_in_the_list_as_it_ends(open_page: OpenPage) -> None:
    one = open_page()
    result = one.classify(TEXT, "edge")["result"]
    row = one.page.locator("#request-rows tr", has_text=result["request_id"][-8:])
    expect(row).to_contain_text("edge")
    assert f"{shown(100 * result['confidence'], 1)} %" in text_of(row)
    assert shown(result["cost"]["cost_lambda"], 2) in text_of(row)
    expect(one.page.locator("#request-count")).to_contain_text("newest first")


def test_filters_choose_requests(open_page: OpenPage) -> None:
    one = open_page()
    for policy in ("mobile", "edge", "cloud"):
        one.classify(TEXT, policy)
    for tier in ("mobile", "edge", "cloud"):
        expect(one.page.locator(f"#request-rows .tier.{tier}").first).to_be_visible()
    one.page.select_option("#filter-tier", "cloud")
    expect(one.page.locator("#request-rows .tier.mobile")).to_have_count(0)
    assert tiers_listed(one) == {"cloud"}
    one.classify(TEXT, "mobile")
    one.classify(TEXT, "cloud")
    assert tiers_listed(one) == {"cloud"}, "also of what arrives while the list is open"
    one.page.select_option("#filter-policy", "random")
    expect(one.page.locator("#no-requests")).to_be_visible()
    one.page.select_option("#filter-tier", "")
    one.page.select_option("#filter-reason", "route")
    one.page.select_option("#filter-policy", "edge")
    expect(one.page.locator("#request-rows .tier.edge").first).to_be_visible()
    expect(one.page.locator("#request-rows .tier.cloud")).to_have_count(0)


def test_the_record_has_both_sides_and_ids_that_can_be_copied(
    open_page: OpenPage, ledger: LedgerClient, spans: Receiver
) -> None:
    one = open_page()
    request_id = one.classify(TEXT, "cloud")["result"]["request_id"]
    row = one.page.locator("#request-rows tr", has_text=request_id[-8:])
    row.get_by_role("button").click()
    record = one.page.locator("#record")
    expect(record).to_contain_text(request_id)
    table = record.locator("table")
    expect(table).to_be_visible()
    expect(table).not_to_contain_text("none yet")  # the tier's side is delivered on its own
    entries = {entry.side.value: entry for entry in ledger.request_entries(request_id)}
    for name in ("compute_ms", "queue_ms", "label", "exit_layer", "sent_bytes", "started_at"):
        assert text_of(table.locator("tr", has=one.page.get_by_text(name, exact=True)))
    cells = table.locator("tr", has=one.page.get_by_text("compute_ms", exact=True)).locator("td")
    assert cells.all_inner_texts() == [
        str(entries["caller"].compute_ms),
        str(entries["tier"].compute_ms),
    ]
    record.get_by_role("button", name="Copy the Request id").click()
    assert one.page.evaluate("navigator.clipboard.readText()") == request_id
    expect(one.page.locator("#announcements")).to_contain_text("copied")
    record.get_by_role("button", name="Copy the Trace id").click()
    expect(one.page.locator("#announcements")).to_contain_text("Trace id copied")
    trace_id = one.page.evaluate("navigator.clipboard.readText()")
    assert trace_id == entries["caller"].trace_id == entries["tier"].trace_id

    def have_both_sides(received: list[ReceivedSpan]) -> bool:
        services = {span.service for span in received if span.trace_id == trace_id}
        return {"dimee-mobile", "dimee-cloud"} <= services

    spans.wait_for(have_both_sides)
    one.page.keyboard.press("Escape")
    expect(record).to_be_hidden()


def test_what_if_shows_what_the_requests_would_have_cost(open_page: OpenPage) -> None:
    one = open_page()
    for text in (TEXT, "a complete waste of an evening", "every plot turn is visible"):
        one.classify(text, "cascade-routing")
    one.page.reload()
    one.wait_for_stream()
    table = one.page.locator("#what-if-table")
    expect(table).to_contain_text("then, γ 15.0 λ")
    with one.page.expect_response("**/dashboard/api/whatif") as answer:
        one.page.locator("#gamma").fill("3")
    expect(table).to_contain_text("then, γ 3.0 λ")
    rows = json.loads(answer.value.text())["rows"]
    text = text_of(table)
    for name, key in (("Cost", "cost_lambda"), ("All-cloud", "all_cloud_lambda")):
        assert f"{name} {shown(rows[0][key], 2)} λ {shown(rows[1][key], 2)} λ" in text
    savings = [shown(100 * row["saving"], 1) for row in rows]
    assert f"Saved {savings[0]} % {savings[1]} %" in text
    assert rows[0]["all_cloud_lambda"] - rows[1]["all_cloud_lambda"] == 12
    with one.page.expect_response("**/dashboard/api/whatif") as answer:
        one.page.select_option("#what-if-link", "3g")
    assert json.loads(answer.value.request.post_data or "")["link"] == "3g"
    expect(one.page.locator("#gamma")).to_have_attribute("aria-valuetext", "3.0 λ")


def test_policy_and_prices_in_force(open_page: OpenPage) -> None:
    one = open_page()
    in_force = text_of(one.page.locator("#in-force"))
    assert "Policy cascade-routing" in in_force
    assert "Mode auto" in in_force
    assert "Cloud fee γ 15.00 λ" in in_force
    one.page.locator("#in-force .term").click()
    expect(one.page.locator("#in-force .definition")).to_contain_text("Exit threshold")
    one.page.keyboard.press("Escape")
    expect(one.page.locator("#in-force .definition")).to_be_hidden()


def test_live_figures_follow_the_requests(open_page: OpenPage) -> None:
    one = open_page()
    for _ in range(3):
        one.classify(TEXT, "edge")
    tiles = one.page.locator("#tiles")
    expect(tiles.locator(".tile", has_text="Requests a second")).not_to_contain_text("0.0/s")
    shares = one.page.locator("#chart-shares")
    expect(shares.locator(".legend")).to_contain_text("edge")
    expect(shares.locator("canvas")).to_be_visible()
    for chart in ("rate", "shares", "latency", "cost"):
        box = one.page.locator(f"#chart-{chart} .chart")
        assert "–" not in (box.get_attribute("aria-label") or "–"), "figures in words"
    one.page.get_by_label("p99").check()
    expect(one.page.locator("#chart-latency .legend")).to_contain_text("ms")
