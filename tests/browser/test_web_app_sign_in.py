"""The app of a gateway with tokens: sign-in, a kept token, sign-out, and a ledger that is down."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from shared.ledger.client import LedgerClient
from shared.serving.tokens import revoke_token
from tests.support.browser import serious_findings
from tests.support.secured_testbed import SecuredTestbed
from tests.support.web_app import HOLD_CALLS, AppContext, AppPage, recorded

STORED = """async () => {
  const database = await new Promise((resolve) => {
    const request = indexedDB.open("dimee");
    request.onsuccess = () => resolve(request.result);
  });
  const request = database.transaction("values").objectStore("values").get("token");
  await new Promise((resolve) => { request.onsuccess = resolve; });
  database.close();
  return [request.result ?? null, document.cookie, { ...localStorage }, location.href];
}"""

BACK_FROM_CACHE = "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))"
"""The event for a page that comes back from the cache, which DevTools switch off."""


@pytest.fixture
def profile(browser: Browser, secured: SecuredTestbed) -> Iterator[AppContext]:
    """A browser profile that has never seen the app."""
    one = AppContext.of(browser, secured.url)
    yield one
    one.close()


def sign_in(one: AppPage, token: str, keep: bool = False) -> None:
    """Enter a token in the dialog."""
    expect(one.page.locator("#sign-in")).to_be_visible()
    one.page.fill("#token", token)
    one.page.set_checked("#keep-token", keep)
    one.page.keyboard.press("Enter")


def sign_in_and_revoke(one: AppPage, secured: SecuredTestbed, name: str) -> None:
    """Sign in with a new token, and revoke it once the app is ready."""
    sign_in(one, secured.token(name, "classify"))
    one.wait_until_ready()
    revoke_token(secured.tokens, name)


def test_token_in_memory_is_forgotten_with_the_page(
    profile: AppContext, secured: SecuredTestbed
) -> None:
    one, token = profile.open(wait=False), secured.token("handheld", "classify")
    sign_in(one, "wrong")
    expect(one.page.locator("#sign-in-error")).to_contain_text("not accepted")
    expect(one.page.locator("#token")).to_be_focused()
    assert serious_findings(one.page) == []
    sign_in(one, token)
    one.wait_until_ready()
    expect(one.page.locator("#sign-in")).to_be_hidden()
    answered = one.classify("edge")
    assert answered.tier == "edge"
    one.wait_until_delivered()
    assert one.page.evaluate(STORED) == [None, "", {}, profile.url]
    one.page.evaluate(BACK_FROM_CACHE)
    expect(one.page.locator("#sign-in")).to_be_visible()
    sign_in(one, token)
    expect(one.page.locator("#sign-in")).to_be_hidden()
    one.page.reload()
    expect(one.page.locator("#sign-in")).to_be_visible()
    profile.check()


def test_kept_token_in_all_tabs_until_the_sign_out(
    profile: AppContext, secured: SecuredTestbed
) -> None:
    one, token = profile.open(wait=False), secured.token("tablet", "classify")
    other = profile.open(wait=False)
    expect(other.page.locator("#sign-in")).to_be_visible()
    sign_in(one, token, keep=True)
    for tab in (one, other):
        tab.wait_until_ready()
        expect(tab.page.locator("#sign-in")).to_be_hidden()
    assert other.classify("edge").tier == "edge"
    assert one.page.evaluate(STORED)[0] == token
    one.page.reload()
    one.wait_until_ready()
    expect(one.page.locator("#sign-in")).to_be_hidden()
    assert one.classify("cloud").tier == "cloud"
    one.page.click("#sign-out")
    for tab in (one, other):
        expect(tab.page.locator("#sign-in")).to_be_visible()
    expect(one.page.locator("#sign-out-problem")).to_be_hidden()
    other.page.keyboard.press("Escape")
    assert other.classify("edge").tier == "mobile", "no tab has the token"
    assert one.page.evaluate(STORED)[0] is None


def test_revoked_token_asks_for_another_and_the_device_answers(
    profile: AppContext, secured: SecuredTestbed
) -> None:
    one = profile.open(wait=False)
    sign_in_and_revoke(one, secured, "lost")
    answered = one.classify("edge")
    assert answered.tier == "mobile"
    expect(one.page.locator("#sign-in")).to_be_visible()
    sign_in(one, secured.token("found", "classify"))
    expect(one.page.locator("#sign-in")).to_be_hidden()
    assert one.classify("edge").tier == "edge"
    one.wait_until_delivered()


def test_sign_in_is_not_asked_for_again_before_the_next_delivery_ends(
    profile: AppContext, secured: SecuredTestbed
) -> None:
    one = profile.open(wait=False)
    sign_in_and_revoke(one, secured, "old")
    assert one.classify("edge").tier == "mobile"
    expect(one.page.locator("#outbox-problem")).to_contain_text("rejects this device's token")
    one.page.evaluate(HOLD_CALLS, "relay/ledger")
    sign_in(one, secured.token("new", "classify"))
    one.page.evaluate("window.callHeld")
    expect(one.page.locator("#sign-in")).to_be_hidden()
    expect(one.page.locator("#open-sign-in")).to_be_hidden()
    one.page.evaluate("window.releaseCalls()")
    one.wait_until_delivered()


def test_ledger_that_is_down_fails_no_answer(profile: AppContext, secured: SecuredTestbed) -> None:
    one = profile.open(wait=False)
    sign_in(one, secured.token("night-shift", "classify"))
    one.wait_until_ready()
    secured.testbed.kill("ledger")
    try:
        made = [one.classify("mobile"), one.classify("edge")]
        assert [request.tier for request in made] == ["mobile", "edge"]
        expect(one.page.locator("#outbox-count")).to_contain_text("3 entries wait")
        expect(one.page.locator("#outbox-problem")).to_contain_text("Not delivered")
    finally:
        secured.testbed.start("ledger")
        secured.testbed.wait_ready("ledger")
    one.page.click("#deliver")
    one.wait_until_delivered()
    credentials = secured.ledger_credentials()
    ledger = LedgerClient(secured.testbed.roles["ledger"].url, credentials=credentials)
    for request in made:
        assert len(recorded(ledger, request)) == 2
    ledger.close()
