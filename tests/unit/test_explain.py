"""Why a request went where it went, and what the last ones would have done at other prices."""

from __future__ import annotations

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
from mobile_client.insight.replay import AtHand, Replay, expected_lambda, known
from mobile_client.insight.request_trace import RequestTrace, read_request
from mobile_client.insight.whatif import Change, WhatIf, what_if
from mobile_client.options import RequestOptions
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.bundle.loading import Bundle
from shared.domain import Tier
from shared.errors import InvalidInput, LedgerUnavailable, NotFound
from shared.ledger.server.store import LedgerStore
from shared.link_profiles import LINKS
from shared.pricing.cost_model import CostModel
from testbed.demo import sample_sentences
from tests.support.mobile import World, answered
from tests.support.paths import BUNDLE, free_ports

TEXTS = sample_sentences()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerStore]:
    """Ledger rows of a real mobile and tiers, by several policies, waiting costing nothing."""
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
def at_hand() -> AtHand:
    return AtHand.load(MobileSettings(bundle=BUNDLE, latency_price_lambda=0.0))


@pytest.fixture(scope="module")
def recorded(live: LedgerStore) -> list[RequestTrace]:
    return [read_request(entries) for entries in live.last(1000, "cascade-routing")]


def changed(at_hand: AtHand, **prices: float) -> CostModel:
    today = at_hand.bundle.cost_model
    return replace(today, **prices)  # type: ignore[arg-type]


def first_asked(report: WhatIf, tier: Tier) -> float:
    (found,) = (one for one in report.measures if one.name == f"{tier.value} asked first")
    return found.after.mean


def test_replay_at_unchanged_prices_is_what_was_decided_live(
    recorded: list[RequestTrace], at_hand: AtHand
) -> None:
    report = what_if(recorded, at_hand, Change(at_hand.bundle.cost_model))
    assert report.requests == len(TEXTS)
    assert report.reproduced == 1.0
    assert report.moved == report.modelled_before == report.modelled_after == 0.0
    by_name = {one.name: one for one in report.measures}
    assert by_name["cost λ"].before.mean == pytest.approx(report.booked_lambda)
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
def test_a_dearer_tier_is_never_asked_first_more_often(
    tier: Tier, factor: float, recorded: list[RequestTrace], at_hand: AtHand
) -> None:
    name = PRICE_OF[tier]
    dearer = changed(at_hand, **{name: getattr(at_hand.bundle.cost_model, name) * factor})
    before = what_if(recorded, at_hand, Change(at_hand.bundle.cost_model))
    after = what_if(recorded, at_hand, Change(dearer))
    assert first_asked(after, tier) <= first_asked(before, tier)


def test_free_and_priceless_clouds_move_decisions(
    recorded: list[RequestTrace], at_hand: AtHand
) -> None:
    free = what_if(recorded, at_hand, Change(changed(at_hand, cloud_fee=0, offload_cloud=0)))
    dear = what_if(recorded, at_hand, Change(changed(at_hand, cloud_fee=1e6)))
    assert first_asked(free, Tier.CLOUD) > first_asked(dear, Tier.CLOUD) == 0
    assert free.modelled_after > 0
    cost = next(one for one in dear.measures if one.name == "cost λ")
    assert cost.after.low <= cost.after.mean <= cost.after.high


def test_a_link_changes_latency_and_with_a_price_on_waiting_decisions(
    recorded: list[RequestTrace], at_hand: AtHand
) -> None:
    prices = at_hand.bundle.cost_model
    far = what_if(recorded, at_hand, Change(prices, LINKS["3g"]))
    near = what_if(recorded, at_hand, Change(prices, LINKS["lan"]))
    latency = [
        next(one.after.mean for one in report.measures if one.name == "latency ms")
        for report in (far, near)
    ]
    assert latency[0] > latency[1]
    assert any("waiting has no price" in note for note in far.notes)
    priced = what_if(recorded, at_hand, Change(prices, LINKS["3g"], latency_price_lambda=1.0))
    assert first_asked(priced, Tier.MOBILE) > first_asked(far, Tier.MOBILE)
    assert [line for line in whatif_lines(priced) if len(line) > 100] == []


def test_the_story_of_value_says_what_each_tier_offered(
    recorded: list[RequestTrace], at_hand: AtHand
) -> None:
    escalated = next(one for one in recorded if len(one.path) > 1)
    story = explain(escalated, at_hand)
    assert [one.tier for one in story.tiers] == list(Tier)
    for view in story.tiers:
        assert view.right is not None
        assert 0 <= view.right <= 1
        assert view.cost_lambda is not None
        assert view.cost_lambda > 0
    chosen = max(story.tiers, key=lambda one: -1e9 if one.worth is None else one.worth)
    assert chosen.tier is escalated.first.tier
    assert f"{chosen.tier} had the highest worth" in story.why
    assert story.attempts[0].verdict.startswith("went on to ")
    assert any(option.worth > 0 for option in story.attempts[0].options)
    assert story.notes == []
    text = "\n".join(lines(story))
    assert "worth it" in text
    assert all(word not in text for word in ("None", "nan"))


def test_the_rows_of_the_story_add_up(recorded: list[RequestTrace], at_hand: AtHand) -> None:
    """Expected λ is that of the first answer and of the shares that are said to go on."""
    assert at_hand.value is not None
    prices, layers_T2 = at_hand.bundle.cost_model, at_hand.value.heads.layers_T2
    later = {
        Tier.EDGE: prices.offload_edge + prices.edge_layer * float(layers_T2[1, 1]),
        Tier.CLOUD: prices.all_cloud,
    }
    views = [view for request in recorded for view in explain(request, at_hand).tiers]
    for view in views:
        assert view.cost_lambda is not None
        if view.tier is Tier.CLOUD:
            assert view.cost_lambda == pytest.approx(prices.all_cloud)
            continue
        assert view.leaves_early is not None
        assert view.goes_on_sure is not None
        assert view.goes_on_not_sure is not None
        assert 0 < sum(view.goes_on_not_sure.values()) < 1, "some go on, and some stay"
        start, layer = (
            (0.0, prices.mobile_layer)
            if view.tier is Tier.MOBILE
            else (prices.offload_edge, prices.edge_layer)
        )
        sure = view.leaves_early
        ran_sure, ran_not = layers_T2[list(Tier).index(view.tier)]
        expected = start + layer * (sure * ran_sure + (1 - sure) * ran_not)
        for share_of_state, shares in (
            (sure, view.goes_on_sure),
            (1 - sure, view.goes_on_not_sure),
        ):
            expected += sum(share_of_state * share * later[to] for to, share in shares.items())
        assert view.cost_lambda == pytest.approx(expected)
    story = explain(recorded[0], at_hand)
    mobile = story.tiers[0]
    assert mobile.goes_on_not_sure is not None
    (share,) = [f"{one:.0%} to {to}" for to, one in mobile.goes_on_not_sure.items()]
    text = "\n".join(lines(story))
    assert share in text
    plans = [view for view in story.tiers if view.goes_on_to is not None]
    assert text.count("is that of sending all that is not sure to the") == len(plans)


def test_a_course_that_nobody_took_is_the_expected_one(
    recorded: list[RequestTrace], at_hand: AtHand
) -> None:
    """Shares, λ, latency and the chance of being right are of the same answers."""
    policy = at_hand.value
    assert policy is not None
    delays = Delays(recorded, dict.fromkeys(Tier, 2.0))
    replay = Replay(at_hand, policy, delays)
    for request in recorded:
        course = replay.course(RequestTrace(request.path, {}, request.knew))
        expectation = known(request)
        index = list(Tier).index(course.first)
        assert course.modelled
        assert sum(course.answered_T) == pytest.approx(1)
        assert course.cost_lambda == expected_lambda(policy, course.first, expectation)
        gone = [
            share * (one is not course.first)
            for one, share in zip(Tier, course.answered_T, strict=True)
        ]
        later_ms = sum(share * delays.mean(one) for one, share in zip(Tier, gone, strict=True))
        assert course.latency_ms == pytest.approx(delays.mean(course.first) + later_ms)
        if course.first is Tier.CLOUD:
            assert course.right == expectation.expected[index]
        else:
            gain = policy.going_on(index).gain(expectation.expected[3 + index])
            assert gain > 0
            assert course.right == pytest.approx(min(1.0, expectation.expected[index] + gain))


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("dimee-fixed", "is nearest to the centroid of the"),
        ("random", "drawn by lot"),
        ("adaee", "what is not sure by the threshold that its bandit"),
    ],
)
def test_the_other_policies_have_their_reasons(
    policy: str, says: str, live: LedgerStore, at_hand: AtHand
) -> None:
    story = explain(read_request(live.last(1, policy)[0]), at_hand)
    assert says in story.why
    assert "None" not in "\n".join(lines(story))
    if policy == "dimee-fixed":
        assert all(one.distance is not None for one in story.tiers)
        assert all(one.least_lambda is not None for one in story.tiers)


def test_another_bundle_is_said(
    recorded: list[RequestTrace], at_hand: AtHand, bundle: Bundle
) -> None:
    other = replace(at_hand, bundle=Bundle(bundle.path, bundle.manifest, "another"))
    story = explain(recorded[0], other)
    assert any("another is at hand" in note for note in story.notes)
    with pytest.raises(NotFound, match="made with another bundle"):
        what_if(recorded, other, Change(at_hand.bundle.cost_model))


def test_entries_from_before_decisions_were_recorded(
    recorded: list[RequestTrace], at_hand: AtHand
) -> None:
    old = read_request([entry.model_copy(update={"decision": None}) for entry in recorded[0].path])
    assert "from before decisions were recorded" in explain(old, at_hand).why
    with pytest.raises(NotFound, match="made before decisions were recorded"):
        what_if([old], at_hand, Change(at_hand.bundle.cost_model))


def test_the_ledger_holds_no_text(recorded: list[RequestTrace]) -> None:
    for request in recorded:
        assert request.first.decision is not None
        assert len(request.first.decision) < 1000
        assert all(text not in request.first.decision for text in TEXTS)


def test_a_mobile_without_servers_explains_itself_too(tmp_path: Path, at_hand: AtHand) -> None:
    world = World(tmp_path, settings={"fail_over": (Tier.EDGE, Tier.CLOUD, Tier.MOBILE)})

    async def work(mobile: MobileService) -> str:
        policy = await mobile.runtime.policy("cascade-routing")
        routed = {text: policy.route(mobile.runtime.prepare(text, None).features) for text in TEXTS}
        away = next(text for text, routing in routed.items() if routing.tier is not Tier.MOBILE)
        (outcome,) = await mobile.classify([away])
        return answered(outcome).request_id

    request_id = world.run(work)
    store = world.ledger()
    story = explain(read_request(store.request(request_id)), at_hand)
    store.close()
    assert story.attempts[0].tier is not Tier.MOBILE
    assert story.attempts[-1].tier is Tier.MOBILE
    assert any(one.state == "failed" for one in story.attempts)


@pytest.mark.parametrize(
    ("text", "price"), [("+30%", 13.0), ("-20 %", 8.0), ("11", 11.0), ("0", 0.0)]
)
def test_prices_are_numbers_or_changes(text: str, price: float) -> None:
    assert new_price("cloud_fee", 10.0, text) == pytest.approx(price)


@pytest.mark.parametrize("text", ["", "cheap", "-3", "-200%", "1e99999", "nan"])
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"--cloud-fee: .* is no price"):
        new_price("cloud_fee", 10.0, text)


def test_an_unreachable_ledger_is_one_sentence() -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(LedgerUnavailable):
        CliRunner().invoke(
            whatif, ["--ledger-url", url, "--bundle", str(BUNDLE)], catch_exceptions=False
        )
