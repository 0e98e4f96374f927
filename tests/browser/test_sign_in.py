"""The page of a gateway with tokens: sign-in, scopes, sign-out, and a ledger that is down."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from shared.serving.tokens import revoke_token
from tests.support.browser import WatchedPage, serious_findings
from tests.support.secured_testbed import SecuredTestbed

TEXT = "a gripping, funny film"
STATE = (401, "/dashboard/api/state")
SIGN_IN = (401, "/dashboard/sign-in")


@pytest.fixture
def one(browser: Browser, secured: SecuredTestbed) -> Iterator[WatchedPage]:
    """The page, at its sign-in."""
    page = WatchedPage(browser, secured.url, 1280, "light")
    page.page.goto(page.url)
    expect(page.page.locator("#sign-in")).to_be_visible()
    yield page
    page.close()


def sign_in(page: Page, token: str) -> None:
    """Type the token and press Enter."""
    page.fill("#token", token)
    page.keyboard.press("Enter")


def test_signs_in_with_a_token_and_out_again(one: WatchedPage, secured: SecuredTestbed) -> None:
    page, token = one.page, secured.token("operator", "classify", "status")
    expect(page.locator("#token")).to_be_focused()
    sign_in(page, token)
    one.wait_for_stream()
    expect(page.locator("#sign-in")).to_be_hidden()
    assert one.classify(TEXT, "mobile")["result"]["label"]

    (cookie,) = one.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert token not in cookie["value"]
    kept = page.evaluate("JSON.stringify([document.cookie, {...localStorage}, location.href])")
    assert json.loads(kept) == ["", {}, f"{secured.url}/"], "no script can read the session"
    page.reload()
    one.wait_for_stream()

    with page.expect_navigation():
        page.click("#sign-out")
    expect(page.locator("#sign-in")).to_be_visible()
    expect(page.locator("#stream-state")).to_have_text("Signed out")
    assert one.context.cookies() == []
    assert page.evaluate("fetch('/dashboard/api/requests').then((answer) => answer.status)") == 401
    one.check(STATE, (401, "/dashboard/api/requests"))


def test_wrong_token(one: WatchedPage, secured: SecuredTestbed) -> None:
    page = one.page
    sign_in(page, "wrong")
    expect(page.locator("#sign-in-error")).to_contain_text("not accepted")
    expect(page.locator("#token")).to_be_focused()
    expect(page.locator("#token")).to_have_attribute("aria-invalid", "true")
    sign_in(page, secured.token("later", "classify", "status"))
    one.wait_for_stream()
    expect(page.locator("#link-list")).to_contain_text("No links are known to this gateway")
    one.check(STATE, SIGN_IN)


def test_token_that_no_header_can_hold_is_not_accepted(one: WatchedPage) -> None:
    sign_in(one.page, "токен")
    expect(one.page.locator("#sign-in-error")).to_contain_text("not accepted")


def test_cancelled_sign_in_can_be_opened_again(one: WatchedPage) -> None:
    page = one.page
    page.keyboard.press("Escape")
    expect(page.locator("#sign-in")).to_be_hidden()
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#sign-in")).to_be_visible()
    one.check(STATE)


def test_token_without_the_scope_status(one: WatchedPage, secured: SecuredTestbed) -> None:
    page = one.page
    sign_in(page, secured.token("app", "classify"))
    expect(page.locator("#banners")).to_contain_text("lacks the scope status")
    assert one.classify(TEXT, "mobile")["result"]["tier"] == "mobile"
    one.check(STATE)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_sign_in_has_no_serious_finding_of_axe(
    browser: Browser, secured: SecuredTestbed, theme: str
) -> None:
    one = WatchedPage(browser, secured.url, 390, theme)
    one.page.goto(one.url)
    expect(one.page.locator("#sign-in")).to_be_visible()
    sign_in(one.page, "wrong")
    expect(one.page.locator("#sign-in-error")).to_contain_text("not accepted")
    assert serious_findings(one.page) == []
    one.close()


def test_revoked_token_ends_the_session(one: WatchedPage, secured: SecuredTestbed) -> None:
    sign_in(one.page, secured.token("leaver", "classify", "status"))
    one.wait_for_stream()
    revoke_token(secured.tokens, "leaver")
    expect(one.page.locator("#sign-in")).to_be_visible()


def test_ledger_down(one: WatchedPage, secured: SecuredTestbed) -> None:
    page = one.page
    sign_in(page, secured.token("night", "classify", "status"))
    one.wait_for_stream()
    secured.testbed.kill("ledger")
    try:
        page.select_option("#filter-since", "1h")
        expect(page.locator("#request-problem")).to_contain_text("The ledger cannot be read")
        result = one.classify(TEXT, "mobile")["result"]
        row = page.locator("#request-rows tr", has_text=result["request_id"][-8:])
        expect(row).to_be_visible()
        page.click("#open-record")
        expect(page.locator("#record-body [role=alert]")).to_be_visible()
    finally:
        secured.testbed.start("ledger")
        secured.testbed.wait_ready("ledger")
    page.get_by_role("button", name="Read again").click()
    expect(page.locator("#record-body table").first).to_be_visible()


@pytest.mark.long
def test_ledger_down_for_a_minute_is_said_at_the_top(
    one: WatchedPage, secured: SecuredTestbed
) -> None:
    page = one.page
    sign_in(page, secured.token("watch", "classify", "status"))
    one.wait_for_stream()
    secured.testbed.kill("ledger")
    try:
        one.classify(TEXT, "mobile")
        banner = page.locator("#banners", has_text="undelivered")
        expect(banner).to_be_visible(timeout=180_000)
        expect(page.locator("#tiles .tile", has_text="Outbox")).not_to_contain_text("0 entries")
    finally:
        secured.testbed.start("ledger")
        secured.testbed.wait_ready("ledger")
    expect(banner).to_be_hidden(timeout=180_000)
