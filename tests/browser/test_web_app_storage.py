"""The app's data on the device: offline visits, damaged files, several tabs, closed pages."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from shared.domain import Delivery, Side, State
from shared.ledger.client import LedgerClient
from testbed.load.target import LoadTarget
from tests.support.browser import serious_findings
from tests.support.web_app import (
    WIDTH,
    AppContext,
    ShownRequest,
    final,
    recorded,
)

DAMAGE = """async () => {
  const cache = await caches.open("dimee-bundle");
  const damaged = (await cache.keys()).filter(({ url }) => url.includes("/kept/"))[0];
  await cache.put(damaged, new Response("damaged"));
}"""
NO_SPACE = """() => {
  window.realPut = IDBObjectStore.prototype.put;
  IDBObjectStore.prototype.put = () => { throw new DOMException("", "QuotaExceededError"); };
}"""
DELIVERED_WITHOUT_SPACE = """async () => {
  const { Database } = await import("./js/client/database.js");
  const { Outbox } = await import("./js/client/outbox.js");
  const database = new Database("another");
  const outbox = new Outbox(database, "page");
  for (const [attempt_id, state] of [["open", "open"], ["ended", "answered"]]) {
    await outbox.record({ attempt_id, side: "caller", request_id: "r", tier: "edge", state,
      started_at: 1 });
  }
  const { put } = IDBObjectStore.prototype;
  IDBObjectStore.prototype.put = () => { throw new DOMException("", "QuotaExceededError"); };
  const marked = [await outbox.markDelivered(await outbox.pending(10))];
  const left = (await outbox.pending(10)).map((row) => row.attempt_id);
  IDBObjectStore.prototype.put = put;
  marked.push(await outbox.markDelivered(await outbox.pending(10)));
  const { waiting } = await outbox.counts();
  await database.close();
  return [marked, left, waiting];
}"""
FILL_OUTBOX = """async (count) => {
  const database = await new Promise((resolve) => {
    const request = indexedDB.open("dimee");
    request.onsuccess = () => resolve(request.result);
  });
  const transaction = database.transaction("outbox", "readwrite");
  for (let i = 0; i < count; i += 1) {
    transaction.objectStore("outbox").put({ attempt_id: `full-${i}`, side: "caller", version: 1,
      body: "{}", terminal: true, rejected: 1 });
  }
  await new Promise((resolve) => { transaction.oncomplete = resolve; });
  database.close();
}"""


def test_second_visit_without_a_network(profile: AppContext, ledger: LedgerClient) -> None:
    first = profile.open()
    first.wait_until_kept()
    first.page.close()
    profile.requests.clear()
    profile.context.set_offline(True)
    one = profile.open()
    expect(one.page.locator("#banners-list")).to_contain_text("This device is offline")
    expect(one.page.locator("#network")).to_have_text("Offline")
    answered = one.classify("edge")
    assert answered.tier == "mobile"
    assert "no server could be reached, so this device answered" in answered.text
    expect(one.page.locator("#outbox-count")).to_contain_text("for delivery")
    assert not [url for url in profile.requests if "/bundle/" in url]

    profile.context.set_offline(False)
    one.wait_until_delivered()
    entries = recorded(ledger, answered)
    assert final(entries).error_code == "offline"
    assert [one.side for one in entries if one.tier == "mobile"] == [Side.CALLER, Side.TIER]
    profile.check()


def test_damaged_file_is_downloaded_again(profile: AppContext) -> None:
    first = profile.open()
    first.page.evaluate(DAMAGE)
    first.page.close()
    profile.requests.clear()
    one = profile.open()
    assert one.classify("mobile").tier == "mobile"
    files = [url for url in profile.requests if url.endswith(".gz") and "/bundle/" in url]
    assert len(files) == 1, "only the damaged file is downloaded"
    profile.check()


def test_two_tabs_deliver_each_entry_once(profile: AppContext, ledger: LedgerClient) -> None:
    tabs = [profile.open(), profile.open()]
    made: list[ShownRequest] = []
    for policy in ("mobile", "edge"):
        made += [tab.classify(policy) for tab in tabs]
    for tab in tabs:
        tab.wait_until_delivered()
    by_request = [recorded(ledger, request) for request in made]
    entries = [entry for one in by_request for entry in one]
    assert len({(entry.attempt_id, entry.side) for entry in entries}) == len(entries) == 8
    assert {request.tier for request in made} == {final(entries).tier for entries in by_request}
    profile.check()


def test_attempt_of_a_closed_page_is_ended_by_the_next(
    profile: AppContext, ledger: LedgerClient, target: LoadTarget
) -> None:
    closed = profile.open()
    target.set_link("mobile-edge", "stall")
    try:
        closed.page.fill("#text", "a text whose page is closed")
        closed.page.select_option("#policy", "edge")
        with closed.page.expect_request("**/relay/edge/v1/infer") as sent:
            closed.page.click("#classify-form [type=submit]")
        attempt = sent.value.post_data_json or {}
        closed.page.close()
    finally:
        target.set_link("mobile-edge", None)
    one = profile.open()
    request = ShownRequest(attempt["request_id"], 1, None, "")
    one.wait_until_delivered()
    entries = [entry for entry in recorded(ledger, request) if entry.side is Side.CALLER]
    (entry,) = entries
    assert entry.attempt_id == attempt["attempt_id"]
    assert (entry.state, entry.error_code) == (State.ABANDONED, "process_died")
    assert (entry.delivery, entry.final) == (Delivery.UNKNOWN, True)


def test_full_outbox_refuses_texts_and_says_so(profile: AppContext) -> None:
    one = profile.open()
    one.page.evaluate(FILL_OUTBOX, 20_000)
    one.page.reload()
    one.wait_until_ready()
    one.page.fill("#text", "a text without room for its entry")
    one.page.click("#classify-form [type=submit]")
    expect(one.page.locator("#classify-error")).to_contain_text("limit of 20,000 entries")
    expect(one.page.locator("#banners-list")).to_contain_text("No text can be classified")
    expect(one.page.locator("#history > li")).to_have_count(0)


def test_device_without_space_refuses_texts_and_says_so(profile: AppContext) -> None:
    one = profile.open()
    assert one.page.evaluate(DELIVERED_WITHOUT_SPACE) == [[False, True], ["open"], 0]
    one.page.evaluate(NO_SPACE)  # Chromium ignores a quota of DevTools in a profile of its own
    one.page.fill("#text", "a text without room for its entry")
    one.page.click("#classify-form [type=submit]")
    expect(one.page.locator("#classify-error")).to_contain_text("no more space")
    expect(one.page.locator("#history > li")).to_have_count(0)
    one.page.evaluate("() => { IDBObjectStore.prototype.put = window.realPut; }")
    assert one.classify("mobile").tier == "mobile"
    expect(one.page.locator("#classify-error")).to_be_hidden()
    expect(one.page.locator("#banners-list")).to_be_empty()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_serious_finding_of_axe_on_a_narrow_screen(profile: AppContext, theme: str) -> None:
    one = profile.open()
    one.page.emulate_media(color_scheme="dark" if theme == "dark" else "light")
    one.classify("edge", deadline="5000")
    assert serious_findings(one.page) == []
    width = one.page.evaluate("document.documentElement.scrollWidth")
    assert width <= WIDTH, "the page does not scroll sideways"
    announced = one.page.locator("#announcements")
    expect(announced).to_contain_text("Classified as")
    assert announced.get_attribute("aria-live") == "polite"
    profile.check()


def test_plain_http_is_explained(profile: AppContext) -> None:
    profile.context.add_init_script(
        "Object.defineProperty(window, 'isSecureContext', { value: false })"
    )
    one = profile.open(wait=False)
    expect(one.page.locator("#new-version")).to_contain_text("Open it over https://")
    expect(one.page.locator("#loading")).to_be_hidden()
