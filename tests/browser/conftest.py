"""Fixtures: a testbed with emulated links, Chromium, and pages that are checked at their end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser

from shared.ledger.client import LedgerClient
from testbed.load.target import LoadTarget
from tests.support.browser import OpenPage, WatchedPage, chromium, linked_testbed
from tests.support.otlp_receiver import Receiver, otlp_receiver
from tests.support.secured_testbed import SecuredTestbed, secured_testbed
from tests.support.web_app import AppContext


# for a module and no longer: a test that runs an event loop of its own fails beside Playwright's
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with chromium() as one:
        yield one


@pytest.fixture(scope="package")
def spans() -> Iterator[Receiver]:
    """The spans that the processes of `target` export."""
    with otlp_receiver() as receiver:
        yield receiver


@pytest.fixture(scope="package")
def target(spans: Receiver) -> Iterator[LoadTarget]:
    """The testbed of this folder's tests, with a link to each server."""
    with linked_testbed(spans) as running:
        yield running


@pytest.fixture(scope="package")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredTestbed]:
    """A testbed that needs tokens."""
    with secured_testbed(tmp_path_factory.mktemp("secured")) as running:
        yield running


@pytest.fixture(scope="module")
def own_target(spans: Receiver) -> Iterator[LoadTarget]:
    """A testbed as `target`, of one module: its ledger has no attempt of another test's page."""
    with linked_testbed(spans) as running:
        yield running


@pytest.fixture
def ledger(target: LoadTarget) -> Iterator[LedgerClient]:
    """Client of the testbed's ledger."""
    client = LedgerClient(target.ledger_url)
    yield client
    client.close()


@pytest.fixture
def profile(browser: Browser, target: LoadTarget) -> Iterator[AppContext]:
    """A browser profile that has never seen the app of the testbed's gateway."""
    one = AppContext.of(browser, target.url)
    yield one
    one.close()


@pytest.fixture
def open_page(browser: Browser, target: LoadTarget) -> Iterator[OpenPage]:
    """Open the page of the testbed's gateway; each page is checked at the end of the test."""
    with ExitStack() as stack:
        opened: list[WatchedPage] = []

        def open_one(width: int = 1280, theme: str = "light", motion: bool = False) -> WatchedPage:
            one = WatchedPage(browser, target.url, width, theme, reduced_motion=not motion)
            stack.callback(one.close)
            opened.append(one)
            one.open()
            return one

        yield open_one
        for one in opened:
            one.check()
