"""The price of waiting: its default, its sources, and its effect in `explain` and `whatif`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mobile_client.cli import whatif as whatif_cli
from mobile_client.cli.explain import lines
from mobile_client.cli.whatif import lines as whatif_lines
from mobile_client.client import load_settings
from mobile_client.insight.explain import explain
from mobile_client.insight.replay import ReplayContext
from mobile_client.insight.request_trace import RequestTrace, read_request
from mobile_client.insight.whatif import Scenario, WhatIfReport, what_if
from mobile_client.local.runtime import LocalRuntime
from mobile_client.options import RequestOptions
from mobile_client.resilience.replica_stats import DELAY_EXPIRES_S
from mobile_client.resilience.tier_stats import TierStats
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.bundle.loading import Bundle
from shared.domain import Tier
from shared.errors import NotFound
from shared.ledger.client import LedgerClient
from shared.ledger.entry import LedgerEntry
from shared.link_profiles import LINKS
from shared.policies.conditions import Conditions
from shared.pricing.cost_model import LATENCY_PRICE_LAMBDA, CostModel
from shared.pricing.live_prices import CHECK_INTERVAL_S, LivePrices
from testbed.texts import sample_sentences
from tests.support.certificates import written
from tests.support.clock import Clock
from tests.support.mobile import World
from tests.support.paths import BUNDLE

TEXTS = sample_sentences()
SATELLITE_MS = 600.0


def test_one_second_of_waiting_costs_as_much_as_the_cloud() -> None:
    assert pytest.approx(CostModel.paper(12).all_cloud) == 1000 * LATENCY_PRICE_LAMBDA
    assert MobileSettings().waiting_price_lambda == LATENCY_PRICE_LAMBDA


def test_price_of_waiting_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMEE_LATENCY_PRICE_LAMBDA", "0")
    assert load_settings().waiting_price_lambda == 0
    monkeypatch.setenv("DIMEE_LATENCY_PRICE_LAMBDA", "")
    assert load_settings().waiting_price_lambda == LATENCY_PRICE_LAMBDA


def test_waiting_is_free_under_a_certificate(bundle: Bundle, tmp_path: Path) -> None:
    """A certificate is computed without it, and needs no further setting."""
    settings = MobileSettings(bundle=BUNDLE, certificate=written(bundle, tmp_path))
    runtime = LocalRuntime(settings)
    try:
        assert runtime.tier_stats.conditions.latency_price_lambda == 0
        assert runtime.tier_stats.conditions.cost_model == runtime.guard.cost_model
    finally:
        runtime.close()
    assert ReplayContext.load(settings).policy is not None


def test_cost_of_an_answer_includes_the_waiting() -> None:
    conditions = Conditions(
        CostModel.paper(12), {Tier.EDGE: 100.0}, latency_price_lambda=LATENCY_PRICE_LAMBDA
    )
    assert conditions.waiting_lambda(Tier.EDGE) == pytest.approx(1.8)
    assert conditions.waiting_lambda(Tier.CLOUD) == 0, "no delay is known"
    assert conditions.cost_lambda(Tier.EDGE, 2) == pytest.approx(2.5 + 2 + 1.8)


def test_old_delays_are_forgotten() -> None:
    """Otherwise a tier that waiting made too expensive would never be asked again."""
    clock = Clock()
    tier_stats = TierStats(LivePrices(CostModel.paper(6)), LATENCY_PRICE_LAMBDA, clock)
    tier_stats.record_delay(Tier.CLOUD, 607.0)
    clock.now += DELAY_EXPIRES_S / 2
    tier_stats.record_delay(Tier.EDGE, 8.0)
    clock.now += DELAY_EXPIRES_S / 2
    tier_stats.refresh(5000)
    assert tier_stats.conditions.delay_ms == {Tier.EDGE: 8.0}
    clock.now += DELAY_EXPIRES_S / 2
    tier_stats.refresh(5000)
    assert tier_stats.conditions.delay_ms == {}
    tier_stats.record_delay(Tier.CLOUD, 20.0)
    assert tier_stats.conditions.delay_ms == {Tier.CLOUD: 20.0}


def first_tiers(folder: Path, **settings: float) -> list[Tier]:
    """Return the first tier of each text with both servers behind a satellite link."""

    async def work(mobile: MobileService) -> list[Tier]:
        policy = await mobile.runtime.policy("cascade-routing")
        mobile.runtime.tier_stats.record_delay(Tier.MOBILE, 3.0)
        for tier in (Tier.EDGE, Tier.CLOUD):
            mobile.runtime.tier_stats.record_delay(tier, SATELLITE_MS)
        reads = [mobile.runtime.prepare(text, None) for text in TEXTS]
        return [mobile.runtime.route(read, policy, 5000).routing.tier for read in reads]

    return World(folder, settings=dict(settings)).run(work)


def test_mobile_tier_is_preferred_over_a_satellite_link(tmp_path: Path) -> None:
    def share(tiers: list[Tier]) -> float:
        return sum(tier is Tier.MOBILE for tier in tiers) / len(tiers)

    priced = share(first_tiers(tmp_path / "default"))
    assert priced > 0.5
    assert priced > share(first_tiers(tmp_path / "no_latency_price", latency_price_lambda=0.0))


FIXED_MS = {Tier.MOBILE: 3.0, Tier.EDGE: 60.0, Tier.CLOUD: 180.0}
"""Delays in place of the measured ones, so that no verdict depends on the machine's speed."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RequestTrace]]:
    """Requests that were recorded at the default price of waiting, with `FIXED_MS` as delays."""
    world = World(tmp_path_factory.mktemp("waiting"), up=("edge", "cloud"))
    measured = TierStats.record_delay

    def fixed(self: TierStats, tier: Tier, took_ms: float) -> None:
        measured(self, tier, FIXED_MS[tier])

    async def work(mobile: MobileService) -> None:
        mobile.runtime.tier_stats._clock = Clock()  # no delay expires, however long the test takes
        for text in TEXTS:
            await mobile.classify([text], options=RequestOptions(deadline_ms=60_000))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TierStats, "record_delay", fixed)
        world.run(work)
    store = world.ledger()
    yield [
        read_request([timed(entry) for entry in entries])
        for entries in store.last_requests(1000, "cascade-routing")
    ]
    store.close()


def timed(entry: LedgerEntry) -> LedgerEntry:
    """Return the entry with `FIXED_MS` as its time."""
    if entry.round_trip_ms is None:
        return entry
    took_ms = FIXED_MS[entry.tier]
    network_ms = 0.0 if entry.tier is Tier.MOBILE else took_ms - 3.0
    return entry.model_copy(update={"round_trip_ms": took_ms, "network_ms": network_ms})


@pytest.fixture(scope="module")
def context() -> ReplayContext:
    return ReplayContext.load(MobileSettings(bundle=BUNDLE))


def test_decision_is_recorded_with_price_of_waiting_and_delays(
    recorded: list[RequestTrace],
) -> None:
    assert all(
        one.decision is not None and one.decision.latency_price_lambda == LATENCY_PRICE_LAMBDA
        for one in recorded
    )
    first, last = recorded[-1].decision, recorded[0].decision
    assert first is not None
    assert last is not None
    assert first.delays == {}, "nothing was measured before the first request"
    assert last.delays
    assert all(delay > 0 for delay in last.delays.values())


def test_explain_shows_the_price_of_waiting_and_its_effect(
    recorded: list[RequestTrace], context: ReplayContext
) -> None:
    request = next(
        one for one in recorded if len(one.path) > 1 and one.decision and one.decision.delays
    )
    assert request.decision is not None
    explained = explain(request, context)
    assert explained.latency_price_lambda == LATENCY_PRICE_LAMBDA
    assert explained.notes == [], (
        "the recorded rate and delays give the recorded expected values again"
    )
    for view in explained.tiers:
        known = (request.decision.delays or {}).get(view.tier)
        assert view.delay_ms == known
        if known is not None:
            assert view.waiting_lambda is not None
            assert view.waiting_lambda >= LATENCY_PRICE_LAMBDA * known - 1e-9
    for option in explained.attempts[0].options:
        assert option.cost == pytest.approx(
            (explained.cost_weight or 0) * (option.cost_lambda + option.waiting_lambda)
        )
    text = "\n".join(lines(explained))
    assert "Waiting a second cost 18 λ (0.018 λ a millisecond)" in text
    assert "waiting, λ" in text
    assert "λ of waiting = " in text
    assert "None" not in text


def test_replay_at_the_default_price_reproduces_decisions(
    recorded: list[RequestTrace], context: ReplayContext
) -> None:
    report = what_if(recorded, context, Scenario(context.bundle.cost_model))
    assert report.reproduced == 1
    assert report.modelled_before == 0
    for tier in Tier:
        live = sum(one.first.tier is tier for one in recorded) / len(recorded)
        assert mean_before(report, f"{tier.value} asked first") == pytest.approx(live)
    assert mean_before(report, "cost λ") == pytest.approx(report.recorded_lambda)
    assert report.latency_price_before == report.latency_price_after == LATENCY_PRICE_LAMBDA


def mean_before(report: WhatIfReport, name: str) -> float:
    return next(one.before.mean for one in report.measures if one.name == name)


def without_latency_price(request: RequestTrace) -> RequestTrace:
    """Return the request without its recorded price of waiting."""
    assert request.decision is not None
    decision = request.decision.model_copy(update={"latency_price_lambda": None})
    return RequestTrace(request.path, request.answers, decision)


def test_replay_uses_the_recorded_price_of_waiting(recorded: list[RequestTrace]) -> None:
    """The present price is another, and applies only to requests without a recorded one."""
    high_price = ReplayContext.load(MobileSettings(bundle=BUNDLE, latency_price_lambda=1.0))
    same = Scenario(high_price.bundle.cost_model)
    report = what_if(recorded, high_price, same)
    assert report.reproduced == 1
    assert report.rerouted == 0
    assert report.latency_price_before == report.latency_price_after == LATENCY_PRICE_LAMBDA
    (note,) = [note for note in report.notes if "another price of waiting" in note]
    assert f"{len(recorded)} requests" in note

    today = what_if([without_latency_price(one) for one in recorded], high_price, same)
    assert today.reproduced < 1
    assert today.latency_price_before == 1
    assert not any("another price of waiting" in note for note in today.notes)

    asked = what_if(
        recorded, high_price, Scenario(high_price.bundle.cost_model, latency_price_lambda=1.0)
    )
    assert asked.reproduced == 1
    assert asked.rerouted > 0
    assert (asked.latency_price_before, asked.latency_price_after) == (LATENCY_PRICE_LAMBDA, 1)

    half = [without_latency_price(one) if n % 2 else one for n, one in enumerate(recorded)]
    assert LATENCY_PRICE_LAMBDA < what_if(half, high_price, same).latency_price_before < 1


def test_changed_link_keeps_the_recorded_price_of_waiting(recorded: list[RequestTrace]) -> None:
    no_latency_price = ReplayContext.load(MobileSettings(bundle=BUNDLE, latency_price_lambda=0.0))
    far = what_if(
        recorded, no_latency_price, Scenario(no_latency_price.bundle.cost_model, LINKS["satellite"])
    )
    assert far.latency_price_after == LATENCY_PRICE_LAMBDA
    assert far.rerouted > 0
    assert not any("waiting has no price" in note for note in far.notes)


def book(folder: Path, **facts: float) -> Path:
    file = folder / "prices.json"
    file.write_text(json.dumps({"version": "1"} | facts))
    return file


def rate_of(**settings: Any) -> float:
    """Return the price of waiting in the decisions of a mobile with these settings."""
    runtime = LocalRuntime(MobileSettings(bundle=BUNDLE, **settings))
    try:
        return runtime.tier_stats.conditions.latency_price_lambda
    finally:
        runtime.close()


def test_price_book_sets_the_price_of_waiting(bundle: Bundle, tmp_path: Path) -> None:
    """It replaces the default, and an explicit setting replaces it."""
    assert rate_of(price_book=book(tmp_path)) == LATENCY_PRICE_LAMBDA
    assert rate_of(price_book=book(tmp_path, latency_price_lambda=0)) == 0
    assert rate_of(price_book=book(tmp_path, latency_price_lambda=0.5)) == 0.5
    assert (
        rate_of(price_book=book(tmp_path, latency_price_lambda=0.5), latency_price_lambda=0.25)
        == 0.25
    )
    certificate_file = written(bundle, tmp_path)
    assert (
        rate_of(price_book=book(tmp_path, latency_price_lambda=0.5), certificate=certificate_file)
        == 0
    )


def test_price_of_waiting_changes_with_the_price_book(tmp_path: Path) -> None:
    clock = Clock()
    live_prices = LivePrices(CostModel.paper(6), book(tmp_path, latency_price_lambda=0.5), clock)
    tier_stats = TierStats(live_prices, LATENCY_PRICE_LAMBDA, clock)
    assert tier_stats.conditions.latency_price_lambda == 0.5
    book(tmp_path)
    clock.now += CHECK_INTERVAL_S
    tier_stats.refresh(5000)
    assert tier_stats.conditions.latency_price_lambda == LATENCY_PRICE_LAMBDA


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, 0.5), ({"--latency-price": "2"}, 2.0), ({"DIMEE_LATENCY_PRICE_LAMBDA": "1"}, None)],
)
def test_whatif_with_a_price_book_uses_its_price_of_waiting(
    given: dict[str, str], expected: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on the mobile, an explicit price replaces it."""
    seen: list[Scenario] = []

    def keep(requests: object, context: ReplayContext, change: Scenario) -> None:
        seen.append(change)
        raise NotFound("enough")

    monkeypatch.setattr(whatif_cli, "what_if", keep)
    monkeypatch.setattr(LedgerClient, "last_requests", lambda *_: [])
    options = [
        "--bundle",
        str(BUNDLE),
        "--price-book",
        str(book(tmp_path, latency_price_lambda=0.5)),
    ]
    for name, value in given.items():
        if name.startswith("--"):
            options += [name, value]
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(NotFound, match="enough"):
        CliRunner().invoke(whatif_cli.whatif, options, catch_exceptions=False)
    assert seen[0].latency_price_lambda == expected


def test_whatif_with_another_price_of_waiting_moves_requests(
    recorded: list[RequestTrace], context: ReplayContext
) -> None:
    report = what_if(
        recorded, context, Scenario(context.bundle.cost_model, latency_price_lambda=10.0)
    )
    assert report.latency_price_after == 10
    assert report.rerouted > 0
    assert "waiting 0.018 → 10 λ a ms" in "\n".join(whatif_lines(report))


def test_entries_without_recorded_delays_are_explained_without_waiting(
    recorded: list[RequestTrace], context: ReplayContext
) -> None:
    request = recorded[0]
    assert request.decision is not None
    decision = request.decision.model_copy(update={"delay_ms": None, "latency_price_lambda": None})
    explained = explain(RequestTrace(request.path, request.answers, decision), context)
    assert explained.latency_price_lambda is None
    assert all(one.waiting_lambda is None and one.delay_ms is None for one in explained.tiers)
    assert "Waiting" not in "\n".join(lines(explained))
