"""The app of the gateway: texts on every tier, a cut link, and a ledger that has it all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from shared.domain import Side, State, Tier
from shared.ledger.client import LedgerClient
from testbed.load.target import LoadTarget
from tests.support.web_app import AppContext, ShownRequest, final, ledger_verify, recorded

LINKS = ("mobile-edge", "mobile-cloud")


@pytest.fixture(scope="module")
def target(own_target: LoadTarget) -> LoadTarget:
    """The testbed of these tests alone."""
    return own_target


@pytest.fixture
def restored_links(target: LoadTarget) -> Iterator[LoadTarget]:
    """The testbed, whose links are restored at the end."""
    yield target
    for hop in LINKS:
        target.set_link(hop, None)


def test_every_tier_a_cut_link_and_the_ledger(
    profile: AppContext, restored_links: LoadTarget, ledger: LedgerClient
) -> None:
    target, one = restored_links, profile.open()
    made: list[ShownRequest] = []
    for tier in Tier:
        made.append(one.classify(tier.value))
        assert made[-1].tier == tier.value
        expect(one.page.locator("#answer-tier")).to_have_text(tier.value)
        expect(one.page.locator("#steps > li")).to_have_count(made[-1].attempts)

    for hop in LINKS:
        target.set_link(hop, "reset")
    degraded = one.classify("edge")
    assert degraded.tier == "mobile"
    assert "degraded: " in degraded.text
    expect(one.page.locator("#remarks")).to_contain_text("so this device answered")
    expect(one.tier_badge("edge")).to_contain_text("unreachable")
    made.append(degraded)

    for hop in LINKS:
        target.set_link(hop, None)
    expect(one.tier_badge("edge")).to_contain_text("ready")
    expect(one.tier_badge("cloud")).to_contain_text("ready")
    made.append(one.classify("edge"))
    assert made[-1].tier == "edge"
    assert "degraded" not in made[-1].text

    one.wait_until_delivered()
    for request in made:
        entries = recorded(ledger, request)
        assert final(entries).tier.value == request.tier
        callers = [entry for entry in entries if entry.side is Side.CALLER]
        assert all(entry.writer == "web" for entry in callers)
        assert all(entry.text_hash and len(entry.text_hash) == 32 for entry in callers)
    failed = [entry for entry in recorded(ledger, degraded) if entry.state is State.FAILED]
    assert {entry.tier for entry in failed} == {Tier.EDGE, Tier.CLOUD}
    assert final(recorded(ledger, degraded)).error_code in ("offline", "unavailable")
    assert "consistent" in ledger_verify(target.ledger_url)
    profile.check()
