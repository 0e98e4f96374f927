"""Take docs/figures/web-app.png from a testbed of its own: ``python docs/figures/web_app.py``.

It shows the app on a narrow screen: an answer of two tiers, and one without a network. It needs
Chromium and the extra ``test``.
"""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from testbed.load.target import start_testbed

OUT = Path(__file__).with_name("web-app.png")
WIDTH, HEIGHT = 360, 780
TEXT = "every plot turn is visible from a mile away, yet it is not boring"
OFFLINE_TEXT = "a gripping, funny film"
LINKS = {"mobile-edge": "wifi", "mobile-cloud": "4g"}
FREE_WAITING = {"DIMEE_LATENCY_PRICE_LAMBDA": "0"}
"""The tier then depends on the text alone, and not on the speed of this machine."""
SIDE_BY_SIDE = """<style>body {{ margin: 0; display: flex; gap: 24px; background: #fff }}
img {{ width: {width}px; border: 1px solid #7b8694; border-radius: 16px }}</style>{images}"""


def open_app(browser: Browser, url: str, theme: str) -> Page:
    """Open the app on a narrow screen."""
    page = browser.new_page(
        viewport={"width": WIDTH, "height": HEIGHT},
        device_scale_factor=2,
        reduced_motion="reduce",
        color_scheme="dark" if theme == "dark" else "light",
    )
    page.goto(f"{url}/app/")
    page.locator("#classify-form").wait_for(timeout=120_000)
    return page


def classify(page: Page, text: str, policy: str) -> None:
    """Classify a text and wait for its answer."""
    before = page.locator("#history > li").count()
    page.fill("#text", text)
    page.select_option("#policy", policy)
    page.click("#classify-form [type=submit]")
    page.locator("#history > li").nth(before).wait_for()
    page.evaluate("document.activeElement.blur()")


def take(browser: Browser, url: str, picture: Path) -> None:
    """Save the top of the page and an answer, and an answer without a network."""
    page = open_app(browser, url, "light")
    for _ in range(2):  # so that connections are open
        classify(page, TEXT, "cascade-routing")
    page.wait_for_timeout(500)
    images = [page.screenshot()]
    page.evaluate("document.getElementById('result').scrollIntoView()")
    images.append(page.screenshot())
    page.close()
    page = open_app(browser, url, "dark")
    page.context.set_offline(True)
    classify(page, OFFLINE_TEXT, "edge")
    page.wait_for_timeout(500)
    images.append(page.screenshot())
    page.close()
    folder = picture.parent
    parts = [folder / f".web-app-{number}.png" for number in range(len(images))]
    for part, image in zip(parts, images, strict=True):
        part.write_bytes(image)
    sheet = browser.new_page(viewport={"width": len(parts) * (WIDTH + 26), "height": HEIGHT + 2})
    page_file = folder / ".web-app.html"
    shown = "".join(f'<img src="{part.name}">' for part in parts)
    page_file.write_text(SIDE_BY_SIDE.format(width=WIDTH, images=shown))
    sheet.goto(page_file.as_uri())
    sheet.screenshot(path=picture)
    for file in (*parts, page_file):
        file.unlink()


def main() -> None:
    """Start a testbed and Chromium, and save the picture."""
    with (
        start_testbed(LINKS, 1, options=("--allow-unverified",), settings=FREE_WAITING) as target,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        take(browser, target.url, OUT)
        browser.close()


if __name__ == "__main__":
    main()
