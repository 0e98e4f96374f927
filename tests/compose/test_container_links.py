"""Emulated links between containers (deploy/compose.links.yml)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from shared.link_profiles import LINKS
from tests.support.containers import classify, recorded_requests, verify_ledger

pytestmark = pytest.mark.compose
CONTROL = """
from shared.link_control import LinkControl
from testbed.links.probe import measure
control = LinkControl("link", "http://127.0.0.1:8720")
"""


@pytest.fixture(scope="module")
def ask_link(
    containers: dict[str, Any], run_in: Callable[[str, list[str]], str]
) -> Iterator[Callable[[str, str], str]]:
    """Run a line of Python in the container of a relay, which reaches its control endpoint."""
    if "link-mobile-edge" not in containers:
        pytest.skip("deploy/compose-check.sh starts the links after the other containers")

    def ask(hop: str, line: str) -> str:
        return run_in(f"link-{hop}", ["python", "-c", CONTROL + line])

    yield ask
    ask("mobile-edge", 'control.change("wifi")')


@pytest.mark.parametrize(
    ("hop", "link"), [("mobile-edge", "wifi"), ("mobile-cloud", "4g"), ("mobile-ledger", "4g")]
)
def test_each_hop_has_its_link_profile(
    ask_link: Callable[[str, str], str], hop: str, link: str
) -> None:
    assert ask_link(hop, 'print(control.report()["spec"])') == link


def test_request_takes_the_round_trip_of_its_link(
    ask_link: Callable[[str, str], str], gateway: httpx.Client, ledger: httpx.Client
) -> None:
    before = recorded_requests(ledger)
    ask_link("mobile-edge", 'control.change("3g")')
    ask_link("mobile-edge", "measure(control).raise_if_unverified()")
    started = time.perf_counter()
    (result,) = classify(gateway, ["a film that takes its time"], "edge")
    took_ms = (time.perf_counter() - started) * 1e3
    assert result["tier"] == "edge"
    assert took_ms >= LINKS["3g"].round_trip_ms * 0.9
    report = verify_ledger(ledger, before + 1)
    assert report["total_findings"] == 0, report
