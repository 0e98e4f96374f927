"""The app for browsers, open in Chromium on a narrow screen."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from shared.domain import Side, State
from shared.errors import NotFound
from shared.ledger.client import LedgerClient
from shared.ledger.entry import LedgerEntry
from tests.support.browser import WAIT_MS

WIDTH, HEIGHT = 360, 800
WAIT_S = 60.0
NETWORK_ERROR = re.compile(r"Failed to load resource|net::ERR_|violates the following")
TEXT = "every plot turn is visible from a mile away, yet it is not boring"
HOLD_CALLS = """(path) => {
  const { fetch } = window;
  const held = [];
  window.callHeld = new Promise((notify) => {
    window.fetch = (url, options) => {
      if (!String(url).includes(path)) return fetch(url, options);
      notify();
      return new Promise((resolve) => held.push(() => resolve(fetch(url, options))));
    };
  });
  window.releaseCalls = () => {
    window.fetch = fetch;
    for (const send of held) send();
  };
}"""
"""Holds the page's calls of a path until they are released."""

NOTHING_WAITS = """async () => {
  const database = await new Promise((resolve) => {
    const request = indexedDB.open("dimee");
    request.onsuccess = () => resolve(request.result);
  });
  const rows = database.transaction("outbox").objectStore("outbox");
  const request = rows.index("waiting").count();
  await new Promise((resolve) => { request.onsuccess = resolve; });
  database.close();
  return request.result === 0;
}"""


@dataclass(frozen=True)
class ShownRequest:
    """A request as the page shows it: its identifier, its answer's tier, and what it says of it."""

    request_id: str
    attempts: int
    tier: str | None
    text: str


@dataclass
class AppContext:
    """A browser profile: pages in it share cache, database and service worker.

    ``errors`` are errors on the consoles and exceptions, ``hosts`` all hosts that were asked.
    """

    context: BrowserContext
    url: str
    errors: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, browser: Browser, server: str, theme: Any = "light", app: str = "/app/"
    ) -> AppContext:
        """Return a new profile for the app of a gateway or of another server."""
        context = browser.new_context(
            viewport={"width": WIDTH, "height": HEIGHT},
            device_scale_factor=2,
            color_scheme=theme,
            reduced_motion="reduce",
        )
        context.set_default_timeout(WAIT_MS)
        return cls(context, f"{server}{app}")

    def open(self, wait: bool = True) -> AppPage:
        """Open the app in a new tab, and wait until its model is ready."""
        page = self.context.new_page()
        page.on("console", lambda message: self._console(message.type, message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._requested(request.url))
        page.goto(self.url)
        one = AppPage(page)
        if wait:
            one.wait_until_ready()
        return one

    def _console(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not NETWORK_ERROR.search(text):
            self.errors.append(text)

    def _requested(self, url: str) -> None:
        self.requests.append(url)
        self.hosts.add(urlsplit(url).netloc)

    def check(self) -> None:
        """Check that the pages had no error and asked no other host."""
        assert self.errors == []
        assert self.hosts <= {urlsplit(self.url).netloc}

    def close(self) -> None:
        """Close all pages and forget the profile."""
        self.context.close()


@dataclass
class AppPage:
    """One tab of the app."""

    page: Page

    def wait_until_ready(self) -> None:
        """Wait until a text can be entered."""
        expect(self.page.locator("#classify-form")).to_be_visible()

    def wait_until_kept(self) -> None:
        """Wait until the service worker keeps the app for offline use."""
        self.page.evaluate("navigator.serviceWorker.ready.then(() => null)")

    def classify(self, policy: str, text: str = TEXT, **options: str) -> ShownRequest:
        """Classify a text and return what the page shows at the top of its list."""
        page, before = self.page, self.page.locator("#history > li").count()
        page.fill("#text", text)
        page.select_option("#policy", policy)
        if options and not page.locator("#deadline").is_visible():
            page.click("#classify-form summary")
        for name, value in options.items():
            page.fill(f"#{name}", value)
        page.click("#classify-form [type=submit]")
        expect(page.locator("#history > li")).to_have_count(before + 1)
        return self.shown()

    def shown(self) -> ShownRequest:
        """Return the newest request of the list."""
        item = self.page.locator("#history > li").first
        tier = item.locator(".tier")
        return ShownRequest(
            item.get_attribute("data-request") or "",
            int(item.get_attribute("data-attempts") or 0),
            tier.inner_text() if tier.count() else None,
            " ".join(item.inner_text().split()),
        )

    def wait_until_delivered(self) -> None:
        """Wait until the ledger has every entry of this device, and the page shows it."""
        # what the page shows may be older than the last entry
        self.page.wait_for_function(NOTHING_WAITS)
        expect(self.page.locator('#outbox-count[data-waiting="0"]')).to_be_visible()

    def tier_badge(self, tier: str) -> Locator:
        """Return what the page says of a server."""
        return self.page.locator(f'#tiers [data-tier="{tier}"]')


def recorded(ledger: LedgerClient, request: ShownRequest) -> list[LedgerEntry]:
    """Return all entries of a request, once each of its attempts has ended in the ledger."""
    until = time.monotonic() + WAIT_S
    while True:
        with suppress(NotFound):
            entries = ledger.request_entries(request.request_id)
            ended = [one for one in entries if one.side is Side.CALLER and one.is_terminal]
            answered = {one.attempt_id for one in ended if one.state is State.ANSWERED}
            tiers = {one.attempt_id for one in entries if one.side is Side.TIER}
            if len(ended) == request.attempts and answered <= tiers:
                return entries
        assert time.monotonic() < until, "the ledger does not get the request"
        time.sleep(0.05)


def final(entries: list[LedgerEntry]) -> LedgerEntry:
    """Return the entry with which the request ended."""
    (entry,) = (one for one in entries if one.final)
    return entry


def ledger_verify(ledger_url: str) -> str:
    """Return the output of ``dimee ledger verify``; fails unless the ledger is consistent."""
    command = [sys.executable, "-m", "shared.command", "ledger", "verify"]
    done = subprocess.run(
        [*command, "--ledger-url", ledger_url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
