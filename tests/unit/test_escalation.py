"""Escalation of uncertain answers; the mobile's own answer is returned if all servers fail."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from mobile_client.options import RequestOptions
from mobile_client.service import MobileService
from shared.bundle.loading import Bundle
from shared.domain import LayerRange, Reason, Side, State, Tier
from shared.errors import InvalidInput
from shared.inference.classifier import Classifier
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from shared.ledger.server.store import LedgerStore
from shared.ledger.server.summary import summarise
from shared.ledger.server.verify import verify
from shared.pricing.cost_model import CostModel
from shared.wire import Classification
from testbed.texts import sample_sentences
from tests.support.mobile import World, answered, attempts_of
from tests.support.played_tiers import plays
from tests.support.virtual_time import READING_S

ROUTED = ("mobile", "route", "answered")
COSTS = CostModel.paper(6)
"""Prices of the shipped bundle."""
BOTH = (COSTS.mobile_layer + COSTS.all_cloud, COSTS.all_cloud)
"""λ of one mobile layer with an answer of the cloud, and λ of the cloud alone."""
REUSED = ("mobile", "fail_over", "answered")
POLICY = "i-splitee"  # its first arm asks exit 1 only, against the bundle's α


@pytest.fixture(scope="module")
def texts(bundle: Bundle) -> dict[bool, str]:
    """Return a sentence whose confidence at exit 1 reaches α (True), and one below (False)."""
    first, alpha = Classifier(bundle, LayerRange(1, 1)), bundle.manifest.alpha
    found = {}
    for text in sample_sentences():
        (prediction,) = first.classify([first.encoder.encode(text)], None)
        found[prediction.confidence >= alpha] = text
    return found


@pytest.fixture
def uncertain(texts: dict[bool, str]) -> str:
    return texts[False]


def ask(world: World, text: str, **options: Any) -> Classification:
    async def work(mobile: MobileService) -> Classification:
        return answered(
            (await mobile.classify([text], options=RequestOptions(POLICY, **options)))[0]
        )

    return world.run(work)


def checked(world: World) -> LedgerStore:
    """Return a ledger with all entries, after checking that it is consistent."""
    store = world.ledger()
    report = verify(store)
    assert report.consistent, report
    return store


def test_uncertain_answer_is_escalated_to_the_cloud(uncertain: str, tmp_path: Path) -> None:
    world = World(tmp_path, up=("cloud",))
    answer = ask(world, uncertain)
    assert attempts_of(answer) == [ROUTED, ("cloud", "escalate", "answered")]
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


def test_confident_answer_is_not_escalated(texts: dict[bool, str], tmp_path: Path) -> None:
    world = World(tmp_path)
    answer = ask(world, texts[True])
    assert attempts_of(answer) == [ROUTED]
    assert (answer.escalated, answer.failed_over) == (False, False)
    assert answer.cost.cost_lambda == COSTS.mobile_layer
    checked(world).close()


def test_edge_answers_in_place_of_an_unreachable_cloud(uncertain: str, tmp_path: Path) -> None:
    world = World(tmp_path, up=("edge",))
    answer = ask(world, uncertain)
    expected = [ROUTED, ("cloud", "escalate", "failed"), ("edge", "fail_over", "answered")]
    assert attempts_of(answer) == expected
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
def test_mobile_answer_is_returned_if_every_server_is_down(
    fail_over: tuple[str, ...], asked: list[tuple[str, str, str]], uncertain: str, tmp_path: Path
) -> None:
    world = World(tmp_path, settings={"fail_over": fail_over})
    answer = ask(world, uncertain)
    assert attempts_of(answer) == [ROUTED, *asked, REUSED]
    assert (answer.tier, answer.exit_layer) == (Tier.MOBILE, 1)
    assert (answer.escalated, answer.failed_over) == (True, True)
    # its work is done once, and paid once
    assert [one.cost_lambda for one in answer.attempts] == [COSTS.mobile_layer] + [0.0] * (
        len(asked) + 1
    )
    assert answer.attempts[-1].compute_ms == 0
    store = checked(world)
    report = summarise(store)
    store.close()
    assert (report.requests, report.answered_by_tier) == (1, {"mobile": 1})
    assert (report.escalated, report.failed_over) == (1, 1)


def test_tier_that_refuses_a_valid_text_has_failed(uncertain: str, tmp_path: Path) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(422, json=InvalidInput("text: no").payload())

    world = World(tmp_path, up=("edge",), played={"cloud": refuse})
    answer = ask(world, uncertain)
    assert attempts_of(answer)[:2] == [ROUTED, ("cloud", "escalate", "failed")]
    assert attempts_of(answer)[2:] == [("edge", "fail_over", "answered")]
    # a failed attempt was sent, and costs oc
    wasted = COSTS.mobile_layer + COSTS.offload_cloud
    assert answer.cost.cost_lambda == wasted + COSTS.attempt(Tier.EDGE, answer.exit_layer)


def test_hung_cloud_gets_the_remaining_time_only(uncertain: str, tmp_path: Path) -> None:
    got: list[float] = []

    async def hang(request: httpx.Request) -> httpx.Response:
        got.append(json.loads(request.content)["deadline_ms"])
        await asyncio.Event().wait()
        raise AssertionError

    settings = {"fail_over": ()}
    world = World(tmp_path, played={"cloud": hang}, settings=settings, virtual_time=True)
    answer = ask(world, uncertain, deadline_ms=400)
    assert attempts_of(answer) == [ROUTED, ("cloud", "escalate", "timed_out"), REUSED]
    own = answer.attempts[0]
    assert own.queue_ms is not None
    assert own.compute_ms is not None
    assert 0 < got[0] <= 400 - own.queue_ms - own.compute_ms
    checked(world).close()


LEFT_READINGS = 3


def test_mobile_answer_is_final_without_time_left(uncertain: str, tmp_path: Path) -> None:
    world = World(tmp_path, played={"cloud": plays("answers", "cloud")}, virtual_time=True)

    async def work(mobile: MobileService) -> Classification:
        options = RequestOptions(POLICY, deadline_ms=1)
        # the deadline passes while the mobile's layers run
        since = mobile._clock() - 1e-3 + LEFT_READINGS * READING_S
        return answered((await mobile.classify([uncertain], options=options, since=since))[0])

    answer = world.run(work)
    assert attempts_of(answer) == [ROUTED]
    assert (answer.escalated, answer.failed_over) == (False, False)
    checked(world).close()


def test_end_of_an_attempt_is_durable_before_the_next_is_sent(
    uncertain: str, tmp_path: Path
) -> None:
    """The outbox is read while the cloud works, as after a kill of the mobile at that moment."""
    left: list[LedgerEntry] = []
    mobiles: list[MobileService] = []

    def read_outbox(_: httpx.Request) -> httpx.Response:
        rows = mobiles[0].outbox.pending(100)
        left.extend(LedgerEntry.model_validate_json(row[3]) for row in rows)
        return httpx.Response(503)

    async def work(mobile: MobileService) -> None:
        mobiles.append(mobile)
        await mobile.classify([uncertain], options=RequestOptions(POLICY))

    World(tmp_path, played={"cloud": read_outbox}).run(work)
    callers = {entry.ordinal: entry for entry in left if entry.side is Side.CALLER}
    assert [callers[n].state for n in (1, 2)] == [State.ANSWERED, State.OPEN]
    assert [callers[n].reason for n in (1, 2)] == [Reason.ROUTE, Reason.ESCALATE]
    assert not callers[1].final
    assert callers[1].cost_lambda == COSTS.mobile_layer


def test_mobile_that_dies_between_two_attempts_leaves_one_final_attempt(
    uncertain: str, tmp_path: Path
) -> None:
    """The end of the first attempt and the start of the second are written together."""
    copies: list[Path] = []

    async def work(mobile: MobileService) -> None:
        record = mobile.outbox.record

        def copy_and_record(*entries: LedgerEntry) -> None:
            record(*entries)
            folder = tmp_path / f"after-{len(copies)}" / "mobile"
            folder.mkdir(parents=True)
            with closing(sqlite3.connect(folder / "outbox-0.sqlite")) as copy:
                mobile.outbox._table._db.backup(copy)
            copies.append(folder)

        mobile.outbox.record = copy_and_record  # type: ignore[method-assign]
        await mobile.classify([uncertain], options=RequestOptions(POLICY))

    World(tmp_path, played={"cloud": plays("answers", "cloud")}).run(work)
    assert len(copies) == 3  # begun, escalated, answered
    for number, folder in enumerate(copies):
        outbox = Outbox.claim(folder, "mobile")  # what the next mobile finds after a crash
        rows = [LedgerEntry.model_validate_json(row[3]) for row in outbox.pending(100)]
        outbox.close()
        callers = [row for row in rows if row.side is Side.CALLER]
        assert all(row.is_terminal for row in callers)
        assert [row.final for row in sorted(callers, key=lambda row: row.ordinal)] == (
            [True] if number == 0 else [False, True]
        )
