"""The exported app on a server of static files: another origin, which the services' settings name.

The edge is called directly, the cloud and the ledger through the gateway's relay. That an origin
which is not named reaches neither is in `test_web_app_static`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from mobile_client.settings import MobileSettings
from mobile_client.web.export import static_config, write_app
from shared.bundle.loading import Bundle
from shared.bundle.mobile_bundle import make_mobile_bundle
from shared.domain import Tier
from shared.ledger.client import LedgerClient
from testbed.processes.processes import Testbed
from tests.support.paths import BUNDLE, free_ports
from tests.support.running_testbed import start
from tests.support.static_server import static_server
from tests.support.web_app import AppContext, ledger_verify, recorded


@pytest.fixture(scope="module")
def port() -> int:
    """Port of the static server whose origin is named."""
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Testbed]:
    """Services whose settings name the origin."""
    folder = tmp_path_factory.mktemp("services")
    with start(folder, DIMEE_WEB_ORIGINS=f"http://127.0.0.1:{port}") as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, services: Testbed, bundle: Bundle) -> Path:
    """A folder whose subfolder ``app`` has the exported app."""
    folder = tmp_path_factory.mktemp("static")
    config = static_config(
        MobileSettings(bundle=BUNDLE),
        bundle,
        gateway=services.roles["mobile"].url,
        edge=services.roles["edge"].url,
        cloud=None,
        ledger=None,
        needs_token=False,
    )
    write_app(make_mobile_bundle(bundle, 2, 3), config, folder / "app")
    return folder


def test_app_of_a_named_origin_reaches_every_tier_and_the_ledger(
    browser: Browser, services: Testbed, folder: Path, port: int
) -> None:
    with static_server(folder, port) as origin:
        profile = AppContext.of(browser, origin)
        one = profile.open()
        assert one.page.evaluate("crossOriginIsolated") is False  # this server sends no headers
        made = [one.classify(tier.value) for tier in Tier]
        assert [request.tier for request in made] == [tier.value for tier in Tier]
        one.wait_until_delivered()
        asked = {url for url in profile.requests if "/v1/" in url}
        assert asked == {
            f"{services.roles['edge'].url}/v1/infer",
            f"{services.roles['mobile'].url}/app/relay/cloud/v1/infer",
            f"{services.roles['mobile'].url}/app/relay/ledger/v1/entries",
        }
        ledger = LedgerClient(services.roles["ledger"].url)
        for request in made:
            assert len(recorded(ledger, request)) == 2
        ledger.close()
        assert "consistent" in ledger_verify(services.roles["ledger"].url)
        assert profile.errors == []
        profile.close()
