"""Chromium with the gateway's page open; everything that a page must not do is recorded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    Response,
    expect,
    sync_playwright,
)

from testbed.load.target import LoadTarget, start_testbed
from tests.support.otlp_receiver import Receiver

CHROMIUM = Path("/usr/bin/chromium")
WAIT_MS = 60_000.0
"""Longest wait for something that must appear, on a busy machine."""
AWAITED = (404, "/dashboard/api/requests")
NETWORK_ERROR = re.compile(r"Failed to load resource|net::ERR_")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium; skip the test where there is none."""
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}; install Debian's package chromium to run this test")
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


class WatchedPage:
    """The gateway's page in a context of its own.

    ``errors`` are errors on its console and exceptions, ``statuses`` the answers of 400 and above,
    ``hosts`` all hosts that were asked.
    """

    def __init__(
        self, browser: Browser, url: str, width: int, theme: Any, reduced_motion: bool = True
    ) -> None:
        self.url = url
        self.context: BrowserContext = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=theme,
            reduced_motion="reduce" if reduced_motion else "no-preference",
            permissions=["clipboard-read", "clipboard-write"],
        )
        self.context.set_default_timeout(WAIT_MS)
        self.errors: list[str] = []
        self.statuses: list[tuple[int, str]] = []
        self.hosts: set[str] = set()
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda message: self._console(message.type, message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        self.page.on("response", self._answered)

    def _console(self, kind: str, text: str) -> None:
        # what the network answered is in `statuses`
        if kind in ("error", "warning") and not NETWORK_ERROR.search(text):
            self.errors.append(text)

    def _answered(self, response: Response) -> None:
        path = urlsplit(response.url).path
        # a record may be opened before its entries are in the ledger: the page reads again
        if response.status >= 400 and (response.status, path.rsplit("/", 1)[0]) != AWAITED:
            self.statuses.append((response.status, path))

    def open(self) -> Page:
        """Open the page and wait until its stream of figures has begun."""
        self.page.goto(self.url)
        self.wait_for_stream()
        return self.page

    def wait_for_stream(self) -> None:
        """Wait until the page says that its figures are live."""
        self.page.locator("#stream-state", has_text="Live").wait_for()

    def classify(self, text: str, policy: str = "", **options: str) -> dict[str, Any]:
        """Classify a text on the page; return the answer that the page received."""
        page = self.page
        page.fill("#text", text)
        if not page.locator("#policy").is_visible():
            page.click("#classify-form summary")
        # the policy in force is the first choice, which sends no name
        offered = page.locator(f'#policy option[value="{policy}"]').count() > 0
        page.select_option("#policy", policy if offered else "")
        for name, value in options.items():
            page.fill(f"#{name}", value)
        with page.expect_response("**/dashboard/api/classify") as answer:
            page.click("#classify-form [type=submit]")
        document: dict[str, Any] = json.loads(answer.value.text())
        if answer.value.ok:
            page.locator("#answer-label").wait_for()
        return document

    def check(self, *allowed: tuple[int, str]) -> None:
        """Check that nothing happened that a page must not do; answers may be ``allowed``."""
        assert self.errors == []
        others = [one for one in self.statuses if one not in allowed]
        assert others == [], others
        assert self.hosts <= {urlsplit(self.url).netloc}

    def close(self) -> None:
        """Close the page."""
        self.context.close()


OpenPage = Callable[..., WatchedPage]
"""Opens a page with a ``width`` in pixels, a ``theme`` and, if ``motion``, with movement."""


@contextmanager
def linked_testbed(spans: Receiver) -> Iterator[LoadTarget]:
    """Start a testbed with a link to each server, whose processes export their spans."""
    # waiting is free and queues do not refuse: the policy's decisions depend on the text alone
    settings = {"DIMEE_LATENCY_PRICE_LAMBDA": "0", "DIMEE_MAX_QUEUE_MS": "600000"}
    settings |= spans.settings()
    links = {"mobile-edge": "wifi", "mobile-cloud": "wifi"}
    with start_testbed(links, 1, 0.2, ("--allow-unverified",), settings) as running:
        yield running


def text_of(element: Locator) -> str:
    """Return the text of an element, with ordinary spaces."""
    return " ".join(element.inner_text().split())


def shown(value: float, places: int) -> str:
    """Return a number as the page shows it: its shortest decimal form, rounded half away from 0."""
    return str(Decimal(str(value)).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP))


def serious_findings(page: Page) -> list[str]:
    """Return the serious and critical findings of axe-core, each with its elements."""
    response = Axe().run(page).response
    return [
        f"{found['id']}: {[node['target'] for node in found['nodes']]}"
        for found in response["violations"]
        if found["impact"] in ("serious", "critical")
    ]


def figure(value: float, decimals: int, unit: str) -> str:
    """Return a number as the page shows it."""
    return f"{value:,.{decimals}f} {unit}"
