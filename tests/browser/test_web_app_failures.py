"""Failures of the app's bundle, storage and ledger."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from shared.bundle.loading import Bundle
from tests.support.app_site import Answer, AppSite, app_site, compressed, refusal, stored
from tests.support.web_app import AppContext

DAMAGED_GZIP = b"\x1f\x8b\x08\x00" + bytes(40)
MIB = 1024 * 1024
REPLACE_KEPT_ROUTER = """async () => {
  const hex = (buffer) =>
    [...new Uint8Array(buffer)].map((x) => x.toString(16).padStart(2, "0")).join("");
  const cache = await caches.open("dimee-bundle");
  const address = new URL("bundle/manifest.json", location.href).href;
  const manifest = await (await cache.match(address)).json();
  const stream = new Blob(['{"format_version":1,"arrays":{}}']).stream();
  const compressed = stream.pipeThrough(new CompressionStream("gzip"));
  const content = await new Response(compressed).arrayBuffer();
  const sha256 = hex(await crypto.subtle.digest("SHA-256", content));
  manifest.files["router.json.gz"] = { bytes: content.byteLength, sha256 };
  await cache.put(new URL(`bundle/kept/${sha256}`, location.href).href, new Response(content));
  await cache.put(address, new Response(JSON.stringify(manifest)));
}"""

ROWS_OF_CLOSED_PAGES = """async (bodies) => {
  const database = await new Promise((resolve) => {
    const request = indexedDB.open("dimee");
    request.onsuccess = () => resolve(request.result);
  });
  const transaction = database.transaction("outbox", "readwrite");
  for (const [attempt_id, body] of Object.entries(bodies)) {
    transaction.objectStore("outbox").put({ attempt_id, side: "caller", version: 1, body,
      terminal: false, waiting: 1, page: attempt_id });
  }
  await new Promise((resolve) => { transaction.oncomplete = resolve; });
  database.close();
}"""
UNENDING_CLAIM = b"""Clients.prototype.claim = () => new Promise(() => {});
"""
NO_LOCKS = (
    """navigator.locks.request = async () => { throw new DOMException("", "SecurityError"); };"""
)
NO_TOKEN_KEPT = """() => {
  const put = IDBObjectStore.prototype.put;
  IDBObjectStore.prototype.put = function (value, key) {
    if (key === "token") throw new DOMException("", "QuotaExceededError");
    return put.call(this, value, key);
  };
}"""


@pytest.fixture
def site(tmp_path: Path, bundle: Bundle) -> Iterator[AppSite]:
    """The app on a static server."""
    with app_site(tmp_path, bundle) as one:
        yield one


@pytest.fixture
def profile(browser: Browser, site: AppSite) -> Iterator[AppContext]:
    """A browser profile that has never seen the app."""
    one = AppContext.of(browser, site.url, app="/site/")
    yield one
    one.close()


def test_newer_bundle_that_does_not_work_leaves_the_older_one_in_place(
    profile: AppContext, site: AppSite
) -> None:
    one = profile.open()
    for path, content, problem in (
        ("router.json.gz", compressed(b'{"format_version":1,"arrays":{}}'), "it lacks centroids"),
        ("layers/01.onnx.gz", compressed(b"no layer"), "layer 1 cannot be run"),
        ("router.json.gz", DAMAGED_GZIP, "router.json.gz cannot be decompressed"),
        ("embeddings.safetensors.gz", compressed(bytes(64 * MIB)), "cannot be decompressed"),
    ):
        site.replace_bundle_file(path, content)
        one.page.reload()
        one.wait_until_ready()
        expect(one.page.locator("#banners-list")).to_contain_text("The newer model is not here yet")
        expect(one.page.locator("#banners-list")).to_contain_text(problem)
        assert one.classify("mobile").tier == "mobile"
    one.page.reload()
    one.wait_until_ready()
    assert one.classify("mobile").tier == "mobile", "the older one is still kept"
    assert profile.errors == []


def test_kept_bundle_that_this_version_cannot_use_is_downloaded_again(
    profile: AppContext, site: AppSite
) -> None:
    one = profile.open()
    one.page.evaluate(REPLACE_KEPT_ROUTER)
    one.page.reload()
    one.wait_until_ready()
    assert one.classify("mobile").tier == "mobile"
    assert profile.errors == []


def test_runtime_that_could_not_be_loaded_early_is_loaded_with_the_layers(
    profile: AppContext, site: AppSite
) -> None:
    site.failing.add("ort-wasm-simd-threaded.wasm.gz")
    assert profile.open().classify("mobile").tier == "mobile"
    assert site.failing == set()
    assert profile.errors == []


def test_download_that_stalls_can_be_tried_again(profile: AppContext, site: AppSite) -> None:
    site.stalled.add("router.json.gz")
    try:
        profile.context.clock.install()
        one = profile.open(wait=False)
        expect(one.page.locator("#loading-text")).to_contain_text("Downloading")
        one.page.clock.run_for(31_000)
        # the second sentence if the head of the answer had not come yet
        problem = re.compile("the download broke off|the server cannot be reached")
        expect(one.page.locator("#loading-text")).to_contain_text(problem)
    finally:
        site.resumed.set()
    one.page.click("#loading-retry")
    one.wait_until_ready()
    assert profile.errors == []


def test_app_opens_offline_from_a_server_that_redirects_to_the_folder(profile: AppContext) -> None:
    first = profile.open()
    first.wait_until_kept()
    first.page.close()
    profile.context.set_offline(True)
    assert profile.open().classify("mobile").tier == "mobile"
    assert profile.errors == []


def test_worker_that_cannot_take_over_the_page_holds_no_call_back(
    profile: AppContext, site: AppSite
) -> None:
    script = site.folder / "service-worker.js"
    script.write_bytes(UNENDING_CLAIM + script.read_bytes())
    first = profile.open()
    first.wait_until_kept()
    second = profile.open()
    assert second.page.evaluate("navigator.serviceWorker.controller !== null")
    assert second.classify("mobile").tier == "mobile"
    second.wait_until_delivered()
    assert profile.errors == []


def test_entry_that_is_refused_or_unreadable_delays_no_other(
    profile: AppContext, site: AppSite
) -> None:
    refused: list[str] = []

    def answer(entries: list[dict[str, Any]]) -> Answer:
        refused.extend(entry["attempt_id"] for entry in entries if not refused)
        if any(entry["attempt_id"] in refused for entry in entries):
            return refusal(422, "invalid_input")
        return stored(entries)

    one = profile.open()
    site.answer = answer
    one.classify("mobile")
    one.wait_until_delivered()
    opened = next(entry for entry in site.delivered if entry["side"] == "caller")
    left = {
        "attempt_id": "b" * 32,
        "request_id": "c" * 32,
        "state": "open",
        "ordinal": 1,
        "side": "caller",
    }
    facts = ("tier", "reason", "policy", "writer", "bundle_id", "started_at")
    left |= {name: opened[name] for name in facts}
    bodies = {"a" * 32: "{", left["attempt_id"]: json.dumps(left)}
    one.page.evaluate(ROWS_OF_CLOSED_PAGES, bodies)
    one.page.reload()
    one.wait_until_ready()
    for _ in range(2):
        one.classify("mobile")
    one.wait_until_delivered()
    ends = [entry for entry in site.delivered if entry["attempt_id"] == left["attempt_id"]]
    assert (ends[-1]["state"], ends[-1]["error_code"]) == ("abandoned", "process_died")
    last = [(entry["state"], entry["side"]) for entry in site.delivered[-4:]]
    assert sorted(last[-2:]) == [("answered", "caller"), ("answered", "tier")]
    expect(one.page.locator("#outbox-count")).to_contain_text("refused 3 entries for good")
    assert profile.errors == []


def test_browser_without_locks_is_told_what_to_allow(profile: AppContext) -> None:
    profile.context.add_init_script(NO_LOCKS)
    one = profile.open(wait=False)
    expect(one.page.locator("#loading-text")).to_contain_text("lets this site store nothing")
    assert profile.errors == []


def test_token_that_cannot_be_kept_is_said(profile: AppContext, site: AppSite) -> None:
    site.replace_config(auth_required=True, tiers={"edge": "edge", "cloud": "cloud"})
    one = profile.open()
    one.page.evaluate(NO_TOKEN_KEPT)
    expect(one.page.locator("#sign-in")).to_be_visible()
    one.page.fill("#token", "a-token")
    one.page.check("#keep-token")
    one.page.click("#sign-in-form [type=submit]")
    expect(one.page.locator("#sign-in-error")).to_contain_text("cannot keep the token")
    one.page.uncheck("#keep-token")
    one.page.click("#sign-in-form [type=submit]")
    expect(one.page.locator("#sign-in")).to_be_hidden()
    assert profile.errors == []


def test_long_labels_and_texts_on_a_narrow_page(profile: AppContext, site: AppSite) -> None:
    site.replace_manifest(labels=["n" * 256, "p" * 256])
    one = profile.open()
    one.page.set_viewport_size({"width": 320, "height": 700})
    assert one.classify("mobile").tier == "mobile"
    assert one.classify("mobile", text="😀" * 20_000).tier == "mobile"
    assert one.classify("mobile", text="هذا فيلم رائع 😀\u202e").tier == "mobile"
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 320
    one.page.fill("#text", "")
    one.page.focus("#text")
    one.page.keyboard.insert_text("😀" * 20_001)  # nothing of it is cut silently
    one.page.click("#classify-form [type=submit]")
    expect(one.page.locator("#classify-error")).to_contain_text("20,001 characters; at most 20,000")

    one.page.fill("#text", "a text that is submitted twice")
    one.page.evaluate("() => { for (const _ of [1, 2]) document.forms[0].requestSubmit(); }")
    expect(one.page.locator("#history > li")).to_have_count(4)
    expect(one.page.locator("#classify-form [type=submit]")).to_have_text("Classify")
    expect(one.page.locator("#history > li")).to_have_count(4)


def test_wrong_option_in_closed_details_is_shown(profile: AppContext) -> None:
    one = profile.open()
    one.classify("mobile", deadline="5000")
    one.page.fill("#deadline", "0")
    one.page.click("#classify-form summary")
    one.page.click("#classify-form [type=submit]")
    expect(one.page.locator("#deadline")).to_be_visible()
    expect(one.page.locator("#deadline")).to_be_focused()
    assert profile.errors == []
