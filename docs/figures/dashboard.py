"""Take docs/figures/dashboard.png from a testbed of its own: ``python docs/figures/dashboard.py``.

It needs Chromium and the extra ``test``.
"""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from testbed.load.target import start_testbed

OUT = Path(__file__).with_name("dashboard.png")
TEXT = "every plot turn is visible from a mile away, yet it is not boring"
SIZE = {"width": 1280, "height": 1000}
LINKS = {"mobile-edge": "wifi", "mobile-cloud": "4g"}
FREE_WAITING = {"DIMEE_LATENCY_PRICE_LAMBDA": "0"}
"""The tier then depends on the text alone, and not on the speed of this machine."""


def take(page: Page, url: str) -> None:
    """Classify a text twice, so that connections are open, and save the top of the page."""
    page.goto(url)
    page.locator("#stream-state", has_text="Live").wait_for()
    page.fill("#text", TEXT)
    for _ in range(2):
        with page.expect_response("**/dashboard/api/classify"):
            page.click("#classify-form [type=submit]")
        page.locator("#classify-form [type=submit]:enabled").wait_for()
    page.locator("#steps > li").last.wait_for()
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(640, 5)
    page.screenshot(path=OUT)


def main() -> None:
    """Start a testbed and Chromium, and save the picture."""
    with (
        start_testbed(LINKS, 1, options=("--allow-unverified",), settings=FREE_WAITING) as target,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        page = browser.new_page(viewport=SIZE, reduced_motion="reduce", color_scheme="light")
        take(page, target.url)
        browser.close()


if __name__ == "__main__":
    main()
