"""The app from a server of static files: without isolation, without CORS, with newer versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from mobile_client.settings import MobileSettings
from mobile_client.web.export import static_config, write_app
from shared.bundle.loading import Bundle
from shared.bundle.mobile_bundle import make_mobile_bundle
from testbed.load.target import LoadTarget
from tests.support.app_files import digest
from tests.support.static_server import static_server
from tests.support.web_app import HOLD_CALLS, AppContext


@pytest.fixture
def folder(tmp_path: Path, bundle: Bundle, target: LoadTarget) -> Path:
    """The app with the mobile bundle of m = 2; its tiers are the testbed's gateway."""
    export(tmp_path / "site", bundle, target, 2)
    return tmp_path / "site"


def export(folder: Path, bundle: Bundle, target: LoadTarget, mobile_layers: int) -> None:
    """Write the app, as ``dimee export --mobile --with-app`` does."""
    mobile = make_mobile_bundle(bundle, mobile_layers, 3)
    config = static_config(
        MobileSettings(),
        bundle,
        gateway=target.url,
        edge=None,
        cloud=None,
        ledger=None,
        needs_token=False,
    )
    write_app(mobile, config, folder)


@pytest.fixture
def profile(browser: Browser, folder: Path) -> Iterator[AppContext]:
    """A browser profile for the app of the static server."""
    with static_server(folder.parent) as origin:
        one = AppContext.of(browser, origin, app="/site/")
        yield one
        one.close()


def test_static_files_a_newer_model_and_a_newer_app(
    profile: AppContext, folder: Path, bundle: Bundle, target: LoadTarget
) -> None:
    one = profile.open()
    threads = one.page.locator("#device dt:text-is('Threads') + dd")
    expect(threads).to_have_text("1")
    answered = one.classify("edge")
    assert answered.tier == "mobile", "the gateway names no origin in DIMEE_WEB_ORIGINS"
    assert "no server could be reached" in answered.text
    expect(one.page.locator("#tiers")).to_contain_text("layers 1 to 2")
    one.wait_until_kept()

    export(folder, bundle, target, 1)
    one.page.reload()
    expect(one.page.locator("#tiers")).to_contain_text("this device, layers 1 to 1")
    assert one.classify("mobile").tier == "mobile"

    page = folder / "index.html"
    before = digest(page)
    page.write_text(page.read_text().replace("Classify a text<", "Classify another text<"))
    worker = folder / "service-worker.js"
    worker.write_text(worker.read_text().replace(before, digest(page)))
    other = profile.open()
    one.page.reload()
    one.wait_until_ready()
    headings = [tab.page.locator("#classify-form h2") for tab in (one, other)]
    use_it = one.page.get_by_role("button", name="Use it now")
    expect(use_it).to_be_visible()
    for heading in headings:
        expect(heading).to_have_text("Classify a text")
    one.page.fill("#text", "a text that was not sent")
    one.page.click("#classify-form summary")
    one.page.fill("#ceiling", "30")
    other.page.evaluate(HOLD_CALLS, "/v1/infer")
    other.page.fill("#text", "a text that is classified meanwhile")
    other.page.select_option("#policy", "edge")
    other.page.click("#classify-form summary")
    other.page.fill("#deadline", "60000")
    other.page.click("#classify-form [type=submit]")
    other.page.evaluate("window.callHeld")
    with one.page.expect_navigation():
        use_it.click()
    expect(headings[0]).to_have_text("Classify another text")
    expect(one.page.locator("#text")).to_have_value("a text that was not sent")
    expect(one.page.locator("#ceiling")).to_have_value("30")

    banner = other.page.locator("#new-version")
    expect(banner).to_contain_text("A new version of this app is ready")
    reload = other.page.get_by_role("button", name="Reload this page")
    reload.click()
    expect(banner).to_contain_text("after its answer")
    other.page.evaluate("window.releaseCalls()")
    expect(other.page.locator("#history > li")).to_have_count(1)
    expect(headings[1]).to_have_text("Classify a text")
    with other.page.expect_navigation():
        reload.click()
    expect(headings[1]).to_have_text("Classify another text")
    expect(other.page.locator("#text")).to_have_value("a text that is classified meanwhile")
    assert other.page.evaluate("sessionStorage.length") == 0
    profile.errors = [error for error in profile.errors if "CORS policy" not in error]
    assert profile.errors == []
