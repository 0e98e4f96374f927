"""The price of waiting: its default, where it is 0, and what `explain` and `whatif` say of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mobile_client.client import load_settings
from mobile_client.conditions import FORGET_S, Observed
from mobile_client.demo import sample_sentences
from mobile_client.device import Device
from mobile_client.explain import explain
from mobile_client.explain_cli import lines
from mobile_client.phone import Phone
from mobile_client.recorded import Recorded, read_request
from mobile_client.replay import AtHand
from mobile_client.settings import MobileSettings
from mobile_client.whatif import Change, what_if
from mobile_client.whatif_cli import lines as whatif_lines
from shared.bundle import Bundle
from shared.cost import MS_LAMBDA, CostModel
from shared.domain import Tier
from shared.policies.conditions import Conditions
from shared.tariff import Tariff
from tests.conftest import BUNDLE
from tests.unit.phones import World
from tests.unit.promises import written
from tests.unit.test_tariff import Clock

TEXTS = sample_sentences()
SATELLITE_MS = 600.0


def test_a_second_of_waiting_costs_as_much_as_the_cloud() -> None:
    assert pytest.approx(CostModel.paper(12).all_cloud) == 1000 * MS_LAMBDA
    assert MobileSettings().waiting_price == MS_LAMBDA


def test_the_pure_preset_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIMEE_MS_LAMBDA", "0")
    assert load_settings().waiting_price == 0
    monkeypatch.setenv("DIMEE_MS_LAMBDA", "")
    assert load_settings().waiting_price == MS_LAMBDA


def test_under_a_certificate_waiting_costs_nothing(bundle: Bundle, tmp_path: Path) -> None:
    """It was judged so, and a mobile under it starts without any other setting."""
    settings = MobileSettings(bundle=BUNDLE, certificate=written(bundle, tmp_path))
    device = Device(settings)
    try:
        assert device.observed.conditions.ms_lambda == 0
        assert device.observed.conditions.cost_model == device.guard.cost_model
    finally:
        device.close()
    assert AtHand.load(settings).value is not None


def test_the_cost_of_an_answer_holds_its_waiting() -> None:
    conditions = Conditions(CostModel.paper(12), {Tier.EDGE: 100.0}, ms_lambda=MS_LAMBDA)
    assert conditions.waiting(Tier.EDGE) == pytest.approx(1.8)
    assert conditions.waiting(Tier.CLOUD) == 0, "no delay is known"
    assert conditions.cost(Tier.EDGE, 2) == pytest.approx(2.5 + 2 + 1.8)


def test_a_delay_that_is_not_measured_again_is_forgotten() -> None:
    """Else a tier that waiting made too dear would never be asked again."""
    clock = Clock()
    observed = Observed(Tariff(CostModel.paper(6)), MS_LAMBDA, clock)
    observed.answered(Tier.CLOUD, 607.0)
    clock.now += FORGET_S / 2
    observed.answered(Tier.EDGE, 8.0)
    clock.now += FORGET_S / 2
    observed.now(5000)
    assert observed.conditions.delay_ms == {Tier.EDGE: 8.0}
    clock.now += FORGET_S / 2
    observed.now(5000)
    assert observed.conditions.delay_ms == {}
    observed.answered(Tier.CLOUD, 20.0)
    assert observed.conditions.delay_ms == {Tier.CLOUD: 20.0}


def first_tiers(folder: Path, **settings: float) -> list[Tier]:
    """Where texts start when both servers are behind a satellite."""

    async def work(phone: Phone) -> list[Tier]:
        policy = await phone.device.policy("value")
        phone.device.observed.answered(Tier.MOBILE, 3.0)
        for tier in (Tier.EDGE, Tier.CLOUD):
            phone.device.observed.answered(tier, SATELLITE_MS)
        reads = [phone.device.read(text, None) for text in TEXTS]
        return [phone.device.decide(read, policy, 5000).routing.tier for read in reads]

    return World(folder, settings=dict(settings)).run(work)


def test_over_a_satellite_the_mobile_tier_starts(tmp_path: Path) -> None:
    def share(tiers: list[Tier]) -> float:
        return sum(tier is Tier.MOBILE for tier in tiers) / len(tiers)

    priced = share(first_tiers(tmp_path / "default"))
    assert priced > 0.5
    assert priced > share(first_tiers(tmp_path / "pure", ms_lambda=0.0))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Recorded]]:
    """What was booked at the default price of waiting."""
    world = World(tmp_path_factory.mktemp("waiting"), up=("edge", "cloud"))

    async def work(phone: Phone) -> None:
        for text in TEXTS:
            await phone.classify([text], policy="value", deadline_ms=60_000)

    world.run(work)
    store = world.ledger()
    yield [read_request(entries) for entries in store.last(1000, "value")]
    store.close()


@pytest.fixture(scope="module")
def at_hand() -> AtHand:
    return AtHand.load(MobileSettings(bundle=BUNDLE))


def test_a_decision_is_recorded_with_rate_and_delays(recorded: list[Recorded]) -> None:
    assert all(one.knew is not None and one.knew.ms_lambda == MS_LAMBDA for one in recorded)
    first, last = recorded[-1].knew, recorded[0].knew
    assert first is not None
    assert last is not None
    assert first.delays == {}, "nothing was measured before the first request"
    assert last.delays
    assert all(delay > 0 for delay in last.delays.values())


def test_explain_shows_the_rate_and_what_waiting_added(
    recorded: list[Recorded], at_hand: AtHand
) -> None:
    request = next(one for one in recorded if len(one.path) > 1 and one.knew and one.knew.delays)
    assert request.knew is not None
    story = explain(request, at_hand)
    assert story.ms_lambda == MS_LAMBDA
    assert story.notes == [], "the recorded rate and delays give the recorded worths again"
    for view in story.tiers:
        known = (request.knew.delays or {}).get(view.tier)
        assert view.delay_ms == known
        if known is not None:
            assert view.waiting_lambda is not None
            assert view.waiting_lambda >= MS_LAMBDA * known - 1e-9
    for option in story.attempts[0].options:
        assert option.price == pytest.approx(
            (story.price or 0) * (option.cost_lambda + option.waiting_lambda)
        )
    text = "\n".join(lines(story))
    assert "Waiting a second cost 18 λ (0.018 λ a millisecond)" in text
    assert "waiting, λ" in text
    assert "λ of waiting = " in text
    assert "None" not in text


def test_replay_at_the_default_rate_is_what_was_decided_live(
    recorded: list[Recorded], at_hand: AtHand
) -> None:
    report = what_if(recorded, at_hand, Change(at_hand.bundle.cost_model))
    # a second decision is made by delays that are a moment younger than the recorded ones
    assert report.reproduced >= 0.95
    assert report.moved == 0
    assert report.ms_lambda_before == report.ms_lambda_after == MS_LAMBDA


def test_whatif_asks_for_another_rate(recorded: list[Recorded], at_hand: AtHand) -> None:
    report = what_if(recorded, at_hand, Change(at_hand.bundle.cost_model, ms_lambda=10.0))
    assert report.ms_lambda_after == 10
    assert report.moved > 0
    assert "waiting 0.018 → 10 λ a ms" in "\n".join(whatif_lines(report))


def test_entries_without_a_record_of_delays_are_told_as_before(
    recorded: list[Recorded], at_hand: AtHand
) -> None:
    request = recorded[0]
    assert request.knew is not None
    knew = request.knew.model_copy(update={"delay_ms": None, "ms_lambda": None})
    story = explain(Recorded(request.path, request.answers, knew), at_hand)
    assert story.ms_lambda is None
    assert all(one.waiting_lambda is None and one.delay_ms is None for one in story.tiers)
    assert "Waiting" not in "\n".join(lines(story))
