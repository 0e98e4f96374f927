"""Explanation of recorded requests, and their replay at other prices and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobile_client.cli.explain import lines
from mobile_client.cli.whatif import lines as whatif_lines
from mobile_client.cli.whatif import new_price, whatif
from mobile_client.insight.delays import Delays
from mobile_client.insight.explain import explain
from mobile_client.insight.replay import (
    Replay,
    ReplayContext,
    expectation_of,
    expected_cost_lambda,
)
from mobile_client.insight.request_trace import RequestTrace, read_request
from mobile_client.insight.whatif import Scenario, WhatIfReport, what_if
from mobile_client.options import RequestOptions
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.bundle.loading import Bundle
from shared.domain import Tier
from shared.errors import InvalidInput, LedgerUnavailable, NotFound
from shared.ledger.server.store import LedgerStore
from shared.link_profiles import LINKS
from shared.pricing.cost_model import CostModel
from testbed.texts import sample_sentences
from tests.support.mobile import World, answered
from tests.support.paths import BUNDLE, free_ports

TEXTS = sample_sentences()


@pytest.fixture(scope="module")
def ledger_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerStore]:
    """Return the ledger of a mobile and servers with several policies and free waiting."""
    world = World(
        tmp_path_factory.mktemp("live"),
        up=("edge", "cloud"),
        settings={"latency_price_lambda": 0.0},
    )

    async def work(mobile: MobileService) -> None:
        await mobile.classify(TEXTS, options=RequestOptions(deadline_ms=60_000))
        for policy in ("dimee-fixed", "random", "adaee"):
            await mobile.classify(TEXTS[:2], options=RequestOptions(policy, 60_000))

    world.run(work)
    store = world.ledger()
    yield store
    store.close()


@pytest.fixture(scope="module")
def context() -> ReplayContext:
    return ReplayContext.load(MobileSettings(bundle=BUNDLE, latency_price_lambda=0.0))


@pytest.fixture(scope="module")
def recorded(ledger_store: LedgerStore) -> list[RequestTrace]:
    return [
        read_request(entries) for entries in ledger_store.last_requests(1000, "cascade-routing")
    ]


def changed(context: ReplayContext, **prices: float) -> CostModel:
    today = context.bundle.cost_model
    return replace(today, **prices)  # type: ignore[arg-type]


def first_asked(report: WhatIfReport, tier: Tier) -> float:
    (matching,) = (
        measure for measure in report.measures if measure.name == f"{tier.value} asked first"
    )
    return matching.after.mean


def test_replay_at_unchanged_prices_repeats_the_recorded_decisions(
    recorded: list[RequestTrace], context: ReplayContext
) -> None:
    report = what_if(recorded, context, Scenario(context.bundle.cost_model))
    assert report.requests == len(TEXTS)
    assert report.reproduced == 1.0
    assert report.rerouted == report.modelled_before == report.modelled_after == 0.0
    by_name = {one.name: one for one in report.measures}
    assert by_name["cost λ"].before.mean == pytest.approx(report.recorded_lambda)
    assert all(one.change.mean == 0 for one in report.measures)


PRICE_OF = {
    Tier.MOBILE: "mobile_layer",
    Tier.EDGE: "offload_edge",
    Tier.CLOUD: "cloud_fee",
}


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tier=st.sampled_from([Tier.MOBILE, Tier.CLOUD]), factor=st.floats(1.0, 50.0))
def test_a_higher_price_never_sends_more_requests_to_a_tier(
    tier: Tier, factor: float, recorded: list[RequestTrace], context: ReplayContext
) -> None:
    name = PRICE_OF[tier]
    higher = changed(context, **{name: getattr(context.bundle.cost_model, name) * factor})
    before = what_if(recorded, context, Scenario(context.bundle.cost_model))
    after = what_if(recorded, context, Scenario(higher))
    assert first_asked(after, tier) <= first_asked(before, tier)


def test_the_price_of_the_cloud_changes_decisions(
    recorded: list[RequestTrace], context: ReplayContext
) -> None:
    free = what_if(recorded, context, Scenario(changed(context, cloud_fee=0, offload_cloud=0)))
    expensive = what_if(recorded, context, Scenario(changed(context, cloud_fee=1e6)))
    assert first_asked(free, Tier.CLOUD) > first_asked(expensive, Tier.CLOUD) == 0
    assert free.modelled_after > 0
    cost = next(one for one in expensive.measures if one.name == "cost λ")
    assert cost.after.low <= cost.after.mean <= cost.after.high


def test_a_link_changes_latency_and_decisions_if_waiting_has_a_price(
    recorded: list[RequestTrace], context: ReplayContext
) -> None:
    prices = context.bundle.cost_model
    far = what_if(recorded, context, Scenario(prices, LINKS["3g"]))
    near = what_if(recorded, context, Scenario(prices, LINKS["lan"]))
    latency = [
        next(one.after.mean for one in report.measures if one.name == "latency ms")
        for report in (far, near)
    ]
    assert latency[0] > latency[1]
    assert any("waiting has no price" in note for note in far.notes)
    priced = what_if(recorded, context, Scenario(prices, LINKS["3g"], latency_price_lambda=1.0))
    assert first_asked(priced, Tier.MOBILE) > first_asked(far, Tier.MOBILE)
    assert [line for line in whatif_lines(priced) if len(line) > 100] == []


def test_explanation_shows_what_each_tier_offered(
    recorded: list[RequestTrace], context: ReplayContext
) -> None:
    escalated = next(one for one in recorded if len(one.path) > 1)
    explanation = explain(escalated, context)
    assert [one.tier for one in explanation.tiers] == list(Tier)
    for view in explanation.tiers:
        assert view.right is not None
        assert 0 <= view.right <= 1
        assert view.cost_lambda is not None
        assert view.cost_lambda > 0
    chosen = max(
        explanation.tiers,
        key=lambda one: one.expected_value or -1e9,
    )
    assert chosen.tier is escalated.first.tier
    assert f"{chosen.tier} had the highest expected value" in explanation.why
    assert explanation.attempts[0].verdict.startswith("escalated to ")
    assert any(option.net_gain > 0 for option in explanation.attempts[0].options)
    assert explanation.notes == []
    text = "\n".join(lines(explanation))
    assert "gain exceeds cost" in text
    assert all(word not in text for word in ("None", "nan"))


def test_difference_follows_from_the_shown_values(
    recorded: list[RequestTrace], context: ReplayContext
) -> None:
    compared = 0
    for one in recorded:
        explanation = explain(one, context)
        said = re.search(r"(\w+) was next, ([0-9.]+) points lower", explanation.why)
        if said is None:
            continue
        shown = {
            view.tier.value: round(100 * view.expected_value, 2)
            for view in explanation.tiers
            if view.expected_value is not None
        }
        difference = shown[one.first.tier.value] - shown[said[1]]
        assert f"{difference:.2f}" == said[2]
        compared += 1
    assert compared > 10


def test_explained_costs_add_up(recorded: list[RequestTrace], context: ReplayContext) -> None:
    """The expected λ is the sum over the first answer and the escalated shares."""
    assert context.policy is not None
    prices, layers_T2 = context.bundle.cost_model, context.policy.heads.layers_T2
    later = {
        Tier.EDGE: prices.offload_edge + prices.edge_layer * float(layers_T2[1, 1]),
        Tier.CLOUD: prices.all_cloud,
    }
    views = [view for request in recorded for view in explain(request, context).tiers]
    for view in views:
        assert view.cost_lambda is not None
        if view.tier is Tier.CLOUD:
            assert view.cost_lambda == pytest.approx(prices.all_cloud)
            continue
        assert view.confident is not None
        assert view.escalates_confident is not None
        assert view.escalates_not_confident is not None
        assert 0 < sum(view.escalates_not_confident.values()) < 1, (
            "the texts must include escalated and kept answers"
        )
        start, layer = (
            (0.0, prices.mobile_layer)
            if view.tier is Tier.MOBILE
            else (prices.offload_edge, prices.edge_layer)
        )
        confident = view.confident
        layers_confident, layers_not = layers_T2[list(Tier).index(view.tier)]
        expected = start + layer * (confident * layers_confident + (1 - confident) * layers_not)
        for share_of_state, shares in (
            (confident, view.escalates_confident),
            (1 - confident, view.escalates_not_confident),
        ):
            expected += sum(share_of_state * share * later[to] for to, share in shares.items())
        assert view.cost_lambda == pytest.approx(expected)
    explanation = explain(recorded[0], context)
    mobile = explanation.tiers[0]
    assert mobile.escalates_not_confident is not None
    (share,) = [f"{one:.0%} to {to}" for to, one in mobile.escalates_not_confident.items()]
    text = "\n".join(lines(explanation))
    assert share in text
    plans = [view for view in explanation.tiers if view.threshold_target is not None]
    assert text.count("is that of escalating every answer below α to the") == len(plans)


def test_replay_without_answers_uses_expectations(
    recorded: list[RequestTrace], context: ReplayContext
) -> None:
    """Shares, λ, latency and accuracy are expectations over the same answers."""
    policy = context.policy
    assert policy is not None
    delays = Delays(recorded, dict.fromkeys(Tier, 2.0))
    replay = Replay(context, policy, delays)
    for request in recorded:
        replayed = replay.run(RequestTrace(request.path, {}, request.decision))
        expectation = expectation_of(request)
        index = list(Tier).index(replayed.first)
        assert replayed.modelled
        assert sum(replayed.answered_T) == pytest.approx(1)
        assert replayed.cost_lambda == expected_cost_lambda(policy, replayed.first, expectation)
        escalated = [
            share * (one is not replayed.first)
            for one, share in zip(Tier, replayed.answered_T, strict=True)
        ]
        later_ms = sum(
            share * delays.mean_ms(one) for one, share in zip(Tier, escalated, strict=True)
        )
        assert replayed.latency_ms == pytest.approx(delays.mean_ms(replayed.first) + later_ms)
        if replayed.first is Tier.CLOUD:
            assert replayed.right == expectation.expected[index]
        else:
            gain = policy.typical_escalations(index).gain(expectation.expected[3 + index])
            assert gain > 0
            assert replayed.right == pytest.approx(min(1.0, expectation.expected[index] + gain))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("dimee-fixed", "is closest to the centroid of the"),
        ("random", "chosen at random"),
        ("adaee", "answers below the threshold that the bandit"),
    ],
)
def test_explanation_gives_the_reason_of_each_policy(
    policy: str, expected: str, ledger_store: LedgerStore, context: ReplayContext
) -> None:
    explanation = explain(read_request(ledger_store.last_requests(1, policy)[0]), context)
    assert expected in explanation.why
    assert "None" not in "\n".join(lines(explanation))
    if policy == "dimee-fixed":
        assert all(one.distance is not None for one in explanation.tiers)
        assert all(one.min_lambda is not None for one in explanation.tiers)


def test_explanation_notes_another_bundle(
    recorded: list[RequestTrace], context: ReplayContext, bundle: Bundle
) -> None:
    other = replace(context, bundle=Bundle(bundle.path, bundle.manifest, "another"))
    explanation = explain(recorded[0], other)
    assert any("another is loaded" in note for note in explanation.notes)
    with pytest.raises(NotFound, match="of another bundle"):
        what_if(recorded, other, Scenario(context.bundle.cost_model))


def test_explanation_reports_a_missing_decision(
    recorded: list[RequestTrace], context: ReplayContext
) -> None:
    old = read_request([entry.model_copy(update={"decision": None}) for entry in recorded[0].path])
    assert "no record of the decision" in explain(old, context).why
    with pytest.raises(NotFound, match="without a recorded decision"):
        what_if([old], context, Scenario(context.bundle.cost_model))


def test_recorded_decisions_contain_no_text(recorded: list[RequestTrace]) -> None:
    for request in recorded:
        assert request.first.decision is not None
        assert len(request.first.decision) < 1000
        assert all(text not in request.first.decision for text in TEXTS)


def test_explanation_of_failed_attempts_ends_on_the_mobile(
    tmp_path: Path, context: ReplayContext
) -> None:
    world = World(tmp_path, settings={"fail_over": (Tier.EDGE, Tier.CLOUD, Tier.MOBILE)})

    async def work(mobile: MobileService) -> str:
        policy = await mobile.runtime.policy("cascade-routing")
        routed = {text: policy.route(mobile.runtime.prepare(text, None).features) for text in TEXTS}
        away = next(text for text, routing in routed.items() if routing.tier is not Tier.MOBILE)
        (outcome,) = await mobile.classify([away])
        return answered(outcome).request_id

    request_id = world.run(work)
    store = world.ledger()
    explanation = explain(read_request(store.request_entries(request_id)), context)
    store.close()
    assert explanation.attempts[0].tier is not Tier.MOBILE
    assert explanation.attempts[-1].tier is Tier.MOBILE
    assert any(one.state == "failed" for one in explanation.attempts)


@pytest.mark.parametrize(
    ("text", "price"), [("+30%", 13.0), ("-20 %", 8.0), ("11", 11.0), ("0", 0.0)]
)
def test_price_option_accepts_numbers_and_changes(text: str, price: float) -> None:
    assert new_price("cloud_fee", 10.0, text) == pytest.approx(price)


@pytest.mark.parametrize("text", ["", "cheap", "-3", "-200%", "1e99999", "nan"])
def test_price_option_rejects_other_values(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"--cloud-fee: .* is not a price"):
        new_price("cloud_fee", 10.0, text)


def test_whatif_reports_an_unreachable_ledger() -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(LedgerUnavailable):
        CliRunner().invoke(
            whatif, ["--ledger-url", url, "--bundle", str(BUNDLE)], catch_exceptions=False
        )


def test_figure_that_decides_is_that_of_the_chosen_tier(
    ledger_store: LedgerStore, recorded: list[RequestTrace], context: ReplayContext
) -> None:
    for request in recorded:
        explanation = explain(request, context)
        assert explanation.decided_by == "expected_value"
        values = {
            view.tier: view.expected_value
            for view in explanation.tiers
            if view.expected_value is not None
        }
        assert max(values, key=lambda tier: values[tier]) is request.first.tier
    for entries in ledger_store.last_requests(10, "dimee-fixed"):
        explanation = explain(read_request(entries), context)
        assert explanation.decided_by == "distance"
        distances = {
            view.tier: view.distance for view in explanation.tiers if view.distance is not None
        }
        assert min(distances, key=lambda tier: distances[tier]) is read_request(entries).first.tier
        assert any(line.startswith("  distance ") for line in lines(explanation))
    for entries in ledger_store.last_requests(10, "random"):
        assert explain(read_request(entries), context).decided_by is None


@pytest.mark.parametrize("policy", ["cascade-routing", "dimee-fixed"])
def test_tier_that_a_ceiling_forced_is_not_called_the_best(
    policy: str, tmp_path: Path, context: ReplayContext
) -> None:
    world = World(tmp_path, up=("edge", "cloud"), settings={"latency_price_lambda": 0.0})
    options = RequestOptions(policy, 60_000, max_cost_lambda=7.0)
    world.run(lambda mobile: mobile.classify(TEXTS, options=options))
    forced = 0
    for entries in world.ledger().last_requests(1000):
        request = read_request(entries)
        explanation = explain(request, context)
        if "excluded" in explanation.why:
            forced += 1
            assert explanation.why.startswith("mobile, although ")
            assert "cost ceiling" in explanation.why
        elif policy == "dimee-fixed":
            assert "closest to the centroid of the easy pool" in explanation.why
    assert forced > 0
