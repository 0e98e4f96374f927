"""The gateway's page for a task with pairs of texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.support.browser import WatchedPage, chromium, text_of
from tests.support.running_testbed import start
from tests.support.tiny_bundles import export_pair_bundle


def test_a_pair_is_classified_on_the_page(
    tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path
) -> None:
    bundle = export_pair_bundle(tmp_path_factory.mktemp("mrpc"), tiny_encoder)
    folder = tmp_path_factory.mktemp("page")
    with chromium() as browser, start(folder, DIMEE_BUNDLE=str(bundle)) as running:
        one = WatchedPage(browser, running.roles["mobile"].url, 1280, "light")
        page = one.open()
        expect(page.get_by_label("Second text")).to_be_visible()
        # a sample fills both fields
        page.select_option("#sample", index=2)
        text, pair = page.input_value("#text"), page.input_value("#pair")
        assert text
        assert pair
        with page.expect_request("**/dashboard/api/classify") as sent:
            result = one.classify(text, "edge")["result"]
        assert sent.value.post_data_json["pair"] == pair
        assert text_of(page.locator("#answer-label")) == result["label"]
        expect(page.locator("#steps > li")).to_contain_text("Edge")
        one.check()
        one.close()
