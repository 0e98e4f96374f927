"""The page while its gateway is killed, stopped and started again."""

from __future__ import annotations

import os
import signal
import time

from playwright.sync_api import expect

from shared.connections import GRACEFUL_STOP_S
from testbed.load.target import LoadTarget
from tests.support.browser import OpenPage

TEXT = "a gripping, funny film"


def wait_for_end(pid: int, limit_s: float) -> float:
    """Wait until the process has ended; return the seconds that it took."""
    begin = time.monotonic()
    while time.monotonic() - begin < limit_s:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.02)
    return time.monotonic() - begin


def test_the_stream_reconnects_after_a_crash(open_page: OpenPage, target: LoadTarget) -> None:
    one = open_page()
    one.classify(TEXT, "mobile")
    target.kill("mobile")
    expect(one.page.locator("#stream-state")).to_have_text("Reconnecting")
    expect(one.page.locator("#banners")).to_contain_text("Reconnecting")
    one.wait_for_stream()
    expect(one.page.locator("#banners")).to_be_hidden()
    result = one.classify(TEXT, "mobile")["result"]
    expect(one.page.locator("#request-rows", has_text=result["request_id"][-8:])).to_be_visible()


def test_an_open_page_does_not_hold_up_a_graceful_stop(
    open_page: OpenPage, target: LoadTarget
) -> None:
    one = open_page()
    pid = int(target.role("mobile")["pid"])
    os.kill(pid, signal.SIGTERM)
    assert wait_for_end(pid, 2 * GRACEFUL_STOP_S) < GRACEFUL_STOP_S / 3
    one.wait_for_stream()
    expect(one.page.locator("#stream-state")).to_have_text("Live")
