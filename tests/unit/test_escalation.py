"""The mobile escalates what it is unsure of, and keeps its own answer for when nobody helps."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from mobile_client.service import MobileService
from shared.bundle.loading import Bundle
from shared.domain import LayerRange, Reason, Side, State, Tier
from shared.errors import InvalidInput
from shared.inference.classifier import Classifier
from shared.ledger.entry import LedgerEntry
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.summary import summarise
from shared.ledger.server.verify import verify
from shared.pricing.cost_model import CostModel
from shared.wire import Classification
from testbed.demo import sample_sentences
from tests.support.mobile import World, answered, story

HERE = ("mobile", "route", "answered")
COSTS = CostModel.paper(6)
"""The shipped bundle's."""
BOTH = (COSTS.mobile_layer + COSTS.all_cloud, COSTS.all_cloud)
"""λ of one layer on the mobile and an answer of the cloud; and of all-cloud."""
IN_HAND = ("mobile", "fail_over", "answered")
POLICY = "i-splitee"  # its first arm asks exit 1 only, against the bundle's α


@pytest.fixture(scope="module")
def texts(bundle: Bundle) -> dict[bool, str]:
    """A sentence that exit 1 is sure of, and one that it is not."""
    first, alpha = Classifier(bundle, LayerRange(1, 1)), bundle.manifest.alpha
    found = {}
    for text in sample_sentences():
        (prediction,) = first.classify([first.encoder.encode(text)], None)
        found[prediction.confidence >= alpha] = text
    return found


@pytest.fixture
def unsure(texts: dict[bool, str]) -> str:
    return texts[False]


def ask(world: World, text: str, **options: Any) -> Classification:
    async def work(mobile: MobileService) -> Classification:
        return answered((await mobile.classify([text], policy=POLICY, **options))[0])

    return world.run(work)


def checked(world: World) -> LedgerStore:
    """The ledger of everything, which must be clean."""
    store = world.ledger()
    report = verify(store)
    assert report.consistent, report
    return store


def test_an_unsure_answer_goes_on_to_the_cloud(unsure: str, tmp_path: Path) -> None:
    world = World(tmp_path, up=("cloud",))
    answer = ask(world, unsure)
    assert story(answer) == [HERE, ("cloud", "escalate", "answered")]
    assert (answer.tier, answer.exit_layer) == (Tier.CLOUD, 6)
    assert (answer.escalated, answer.failed_over) == (True, False)
    assert [attempt.cost_lambda for attempt in answer.attempts] == [
        COSTS.mobile_layer,
        COSTS.all_cloud,
    ]
    assert (answer.cost.cost_lambda, answer.cost.all_cloud_lambda) == BOTH
    store = checked(world)
    rows = store.request_entries(answer.request_id)
    assert [(row.ordinal, row.side.value, row.final) for row in rows] == [
        (1, "caller", False),
        (1, "tier", False),
        (2, "caller", True),
        (2, "tier", False),
    ]
    assert [row.exit_layer for row in rows] == [1, 1, 6, 6]
    assert all(row.state is State.ANSWERED for row in rows)
    report = summarise(store)
    store.close()
    assert (report.requests, report.answered, report.failed) == (1, 1, 0)
    assert (report.escalated, report.failed_over) == (1, 0)
    assert report.answered_by_tier == {"cloud": 1}
    assert report.exits_by_tier == {"cloud": {"6": 1}}
    assert report.requests_by_policy == {POLICY: 1}
    assert (report.cost_lambda, report.all_cloud_lambda) == BOTH


def test_a_sure_answer_stays(texts: dict[bool, str], tmp_path: Path) -> None:
    world = World(tmp_path)
    answer = ask(world, texts[True])
    assert story(answer) == [HERE]
    assert (answer.escalated, answer.failed_over) == (False, False)
    assert answer.cost.cost_lambda == COSTS.mobile_layer
    checked(world).close()


def test_the_edge_stands_in_for_the_cloud(unsure: str, tmp_path: Path) -> None:
    world = World(tmp_path, up=("edge",))
    answer = ask(world, unsure)
    expected = [HERE, ("cloud", "escalate", "failed"), ("edge", "fail_over", "answered")]
    assert story(answer) == expected
    assert (answer.escalated, answer.failed_over) == (True, True)
    assert answer.cost.cost_lambda == COSTS.mobile_layer + COSTS.attempt(
        Tier.EDGE, answer.exit_layer
    )
    store = checked(world)
    report = summarise(store)
    store.close()
    assert (report.escalated, report.failed_over, report.answered_by_tier) == (1, 1, {"edge": 1})


@pytest.mark.parametrize(
    ("fail_over", "asked"),
    [
        (("edge", "cloud"), [("cloud", "escalate", "failed"), ("edge", "fail_over", "failed")]),
        (("mobile", "edge"), [("cloud", "escalate", "failed"), ("edge", "fail_over", "failed")]),
        ((), [("cloud", "escalate", "failed")]),
    ],
)
def test_with_every_server_down_the_mobiles_own_answer_is_not_lost(
    fail_over: tuple[str, ...], asked: list[tuple[str, str, str]], unsure: str, tmp_path: Path
) -> None:
    world = World(tmp_path, settings={"fail_over": fail_over})
    answer = ask(world, unsure)
    assert story(answer) == [HERE, *asked, IN_HAND]
    assert (answer.tier, answer.exit_layer) == (Tier.MOBILE, 1)
    assert (answer.escalated, answer.failed_over) == (True, True)
    # its work was done and booked once
    assert [one.cost_lambda for one in answer.attempts] == [COSTS.mobile_layer] + [0.0] * (
        len(asked) + 1
    )
    assert answer.attempts[-1].compute_ms == 0
    store = checked(world)
    report = summarise(store)
    store.close()
    assert (report.requests, report.answered_by_tier) == (1, {"mobile": 1})
    assert (report.escalated, report.failed_over) == (1, 1)


def test_a_refusal_is_not_taken_to_another_server(unsure: str, tmp_path: Path) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(422, json=InvalidInput("text: no").payload())

    world = World(tmp_path, up=("edge",), played={"cloud": refuse})
    answer = ask(world, unsure)
    assert story(answer) == [HERE, ("cloud", "escalate", "refused"), IN_HAND]
    # a refused attempt was sent: oc is spent
    assert answer.cost.cost_lambda == COSTS.mobile_layer + COSTS.offload_cloud


def test_a_hung_cloud_gets_what_is_left_and_no_more(unsure: str, tmp_path: Path) -> None:
    got: list[float] = []

    async def hang(request: httpx.Request) -> httpx.Response:
        got.append(json.loads(request.content)["deadline_ms"])
        await asyncio.Event().wait()
        raise AssertionError

    world = World(tmp_path, played={"cloud": hang}, settings={"fail_over": ()})
    answer = ask(world, unsure, deadline_ms=400)
    assert story(answer) == [HERE, ("cloud", "escalate", "timed_out"), IN_HAND]
    own = answer.attempts[0]
    assert own.queue_ms is not None
    assert own.compute_ms is not None
    assert 0 < got[0] <= 400 - own.queue_ms - own.compute_ms
    checked(world).close()


def test_without_time_left_the_mobiles_answer_is_final(unsure: str, tmp_path: Path) -> None:
    world = World(tmp_path, up=("cloud",))
    answer = ask(world, unsure, deadline_ms=0.001)
    assert story(answer) == [HERE]
    assert (answer.escalated, answer.failed_over) == (False, False)
    checked(world).close()


def test_the_end_of_an_attempt_is_durable_when_the_next_begins(unsure: str, tmp_path: Path) -> None:
    """What a mobile that is killed while the cloud works would leave behind."""
    left: list[LedgerEntry] = []
    mobiles: list[MobileService] = []

    def look(_: httpx.Request) -> httpx.Response:
        rows = mobiles[0]._outbox.pending(100)
        left.extend(LedgerEntry.model_validate_json(row[3]) for row in rows)
        return httpx.Response(503)

    async def work(mobile: MobileService) -> None:
        mobiles.append(mobile)
        await mobile.classify([unsure], policy=POLICY)

    World(tmp_path, played={"cloud": look}).run(work)
    callers = {entry.ordinal: entry for entry in left if entry.side is Side.CALLER}
    assert [callers[n].state for n in (1, 2)] == [State.ANSWERED, State.OPEN]
    assert [callers[n].reason for n in (1, 2)] == [Reason.ROUTE, Reason.ESCALATE]
    assert not callers[1].final
    assert callers[1].cost_lambda == COSTS.mobile_layer
