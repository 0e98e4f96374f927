"""The page for every user: axe-core, keyboard only, a narrow page, themes, transferred bytes."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from testbed.load.target import LoadTarget
from tests.support.browser import OpenPage, serious_findings

TEXT = "every plot turn is visible from a mile away, yet it is not boring"
MOST_BYTES = 200_000
MOST_TABS = 120


@pytest.mark.parametrize(
    ("theme", "width"),
    [
        ("light", 1280),
        ("dark", 390),
        pytest.param("dark", 1280, marks=pytest.mark.long),
        pytest.param("light", 390, marks=pytest.mark.long),
    ],
)
def test_no_serious_finding_of_axe(open_page: OpenPage, theme: str, width: int) -> None:
    one = open_page(width, theme)
    one.classify(TEXT, "cascade-routing")
    expect(one.page.locator("#request-rows tr").first).to_be_visible()
    assert serious_findings(one.page) == []
    one.page.click("#open-record")
    expect(one.page.locator("#record-body table").first).to_be_visible()
    assert serious_findings(one.page) == []
    one.page.click("#record-close")
    one.page.locator(".term").first.click()
    assert serious_findings(one.page) == []


@pytest.mark.parametrize("width", [390, 320])
def test_a_narrow_page_does_not_scroll_sideways(
    open_page: OpenPage, target: LoadTarget, width: int
) -> None:
    one = open_page(width)
    one.page.click('[data-link="mobile-edge reset"]')
    one.classify(TEXT, "edge")
    expect(one.page.locator("#request-rows tr").first).to_be_visible()
    expect(one.page.locator("#journey .link-label.cut")).to_have_count(1)
    target.set_link("mobile-edge", None)
    assert one.page.evaluate("document.documentElement.scrollWidth") <= width
    one.page.click("#open-record")
    expect(one.page.locator("#record-body table").first).to_be_visible()
    assert one.page.locator("#record").evaluate("one => one.scrollWidth <= one.clientWidth")


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until the element has the focus."""
    for _ in range(MOST_TABS):
        if page.evaluate("selector => document.activeElement?.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {selector}")


def test_everything_works_with_the_keyboard(open_page: OpenPage, target: LoadTarget) -> None:
    page = open_page().page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    tab_to(page, "#text")
    page.keyboard.press("Control+a")
    page.keyboard.type(TEXT)
    tab_to(page, "#classify-form [type=submit]")
    page.keyboard.press("Enter")
    page.locator("#answer-label").wait_for()
    expect(page.locator("#announcements")).to_contain_text("Classified as")
    tab_to(page, "#open-record")
    page.keyboard.press("Enter")
    expect(page.locator("#record")).to_be_visible()
    assert page.evaluate("document.querySelector('#record').contains(document.activeElement)")
    page.keyboard.press("Escape")
    expect(page.locator("#record")).to_be_hidden()
    assert page.evaluate("document.activeElement.id") == "open-record"
    tab_to(page, '[data-link="mobile-edge reset"]')
    page.keyboard.press("Space")
    expect(page.locator('[data-spec="mobile-edge"]')).to_contain_text("cut")
    # the focus stays where it was although the buttons are drawn again
    expect(page.locator('[data-link="mobile-edge reset"]')).to_be_focused()
    tab_to(page, '[data-link="mobile-edge restore"]')
    page.keyboard.press("Enter")
    expect(page.locator('[data-spec="mobile-edge"]')).to_have_text("wifi")
    assert target.links["mobile-edge"].report()["spec"] == "wifi"
    tab_to(page, "#filter-tier")
    page.keyboard.type("cloud")
    expect(page.locator("#filter-tier")).to_have_value("cloud")
    tab_to(page, "#gamma")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#gamma-value")).to_have_text("15.5 λ")


def background(page: Page) -> str:
    """Return the colour behind the page."""
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_the_theme_is_the_systems_until_another_is_chosen(open_page: OpenPage) -> None:
    page = open_page(theme="dark").page
    dark = background(page)
    button = page.get_by_role("button", name="Dark theme")
    expect(button).to_have_attribute("aria-pressed", "true")
    button.click()
    light = background(page)
    assert light != dark
    page.reload()
    assert background(page) == light, "it is remembered"
    expect(button).to_have_attribute("aria-pressed", "false")
    assert background(open_page(theme="light").page) == light


def test_the_first_paint_transfers_little(open_page: OpenPage) -> None:
    one = open_page()
    session = one.context.new_cdp_session(one.page)
    session.send("Network.enable")
    session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    received: list[float] = []
    session.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))
    one.page.reload()
    one.wait_for_stream()
    assert len(received) > 20, "page, styles, modules and the first calls"
    assert sum(received) <= MOST_BYTES


def test_the_content_policy_allows_only_files_of_the_gateway(open_page: OpenPage) -> None:
    one = open_page()
    policies: list[str] = []
    one.page.on(
        "response",
        lambda answer: (
            policies.append(answer.headers.get("content-security-policy", ""))
            if answer.request.resource_type in ("document", "script", "stylesheet")
            else None
        ),
    )
    one.page.reload()
    one.wait_for_stream()
    assert len(policies) > 20
    assert all(policy.startswith("default-src 'self'") for policy in policies)
    assert not any("unsafe" in policy for policy in policies)
    with pytest.raises(Exception, match="Content Security Policy"):
        one.page.add_script_tag(content="document.title = 'changed'")
    assert one.page.title() == "dimee"
    one.errors.clear()  # the console says that the script was refused


def test_the_words_are_defined_on_the_page(open_page: OpenPage) -> None:
    page = open_page().page
    definitions = " ".join(page.locator(".definition").all_text_contents())
    for beginning in ("Unit of cost", "Cloud fee", "Exit threshold", "What the same requests"):
        assert beginning in definitions, "λ, γ, α and all-cloud"
    buttons = page.locator(".term")
    for index in range(buttons.count()):
        buttons.nth(index).click()
        shown = page.locator(".definition:popover-open")
        expect(shown).to_have_count(1)
        box = shown.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 1280
        page.keyboard.press("Escape")


def test_an_alarm_is_shown_and_read_out(open_page: OpenPage) -> None:
    # a real alarm takes a certificate and hours of audits; the message is the stream's
    page = open_page(390).page
    alarm = {
        "kind": "disagreement",
        "since": "2026-11-27T10:00:00Z",
        "message": "the audits differ more often than the certificate permits",
        "degrades": True,
    }
    page.evaluate(
        """async (alarm) => {
          const { emit } = await import("/dashboard/static/js/bus.js");
          emit("state", { tiers: [], alarms: [alarm] });
        }""",
        alarm,
    )
    expect(page.locator("#events")).to_contain_text(alarm["message"])
    expect(page.locator("#announcements")).to_contain_text("Alarm")
