"""``/docs`` in a browser: nothing of another host, no error, and calls with a session's cookie."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from shared.serving.tokens import SCOPES, new_token
from testbed.processes.processes import Testbed
from tests.support.browser import WatchedPage
from tests.support.running_testbed import start

FIRST_CALL = {
    "mobile": "/v1/classify",
    "edge": "/v1/infer",
    "cloud": "/v1/infer",
    "ledger": "/v1/entries",
}


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    tokens = tmp_path_factory.mktemp("docs") / "tokens.jsonl"
    return new_token(tokens, "anna", SCOPES)[0], tokens


@pytest.fixture(scope="module")
def secured(secret: tuple[str, Path]) -> Iterator[Testbed]:
    token, tokens = secret
    with start(tokens.parent / "state", DIMEE_TOKENS=str(tokens), DIMEE_TOKEN=token) as running:
        yield running


@pytest.mark.parametrize("service", FIRST_CALL)
def test_docs_show_the_calls_of_a_service(
    browser: Browser, secured: Testbed, secret: tuple[str, Path], service: str
) -> None:
    one = WatchedPage(browser, secured.roles[service].url, 1280, "light")
    one.context.set_extra_http_headers({"authorization": f"Bearer {secret[0]}"})
    one.page.goto(f"{one.url}/docs")
    expect(one.page.locator(".title")).to_contain_text(f"dimee {service}")
    expect(one.page.get_by_text(FIRST_CALL[service], exact=True).first).to_be_visible()
    one.check()
    one.close()


def test_docs_call_the_gateway_with_the_session_of_the_page(
    browser: Browser, secured: Testbed, secret: tuple[str, Path]
) -> None:
    one = WatchedPage(browser, secured.roles["mobile"].url, 1280, "light")
    refused = one.page.goto(f"{one.url}/docs")
    assert refused is not None
    assert refused.status == 401
    bearer = {"authorization": f"Bearer {secret[0]}"}
    assert one.context.request.post(f"{one.url}/dashboard/sign-in", headers=bearer).status == 204
    one.page.goto(f"{one.url}/docs")
    one.page.get_by_text("/v1/classify", exact=True).click()
    one.page.get_by_role("button", name="Try it out").click()
    with one.page.expect_response("**/v1/classify") as answer:
        one.page.get_by_role("button", name="Execute").click()
    assert answer.value.status == 200
    assert answer.value.json()["items"][0]["result"]["label"] == "positive"
    one.check((401, "/docs"), (401, "/favicon.ico"))
    one.close()
