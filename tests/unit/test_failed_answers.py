"""A mobile whose edge breaks connections or answers wrongly: fail-over, breaker, entry, price."""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from mobile_client.options import RequestOptions
from mobile_client.service import MobileService
from mobile_client.settings import MobileSettings
from shared.domain import Delivery, Side, State, Tier
from shared.errors import NotReady
from shared.ledger.entry import LedgerEntry
from shared.ledger.outbox import Outbox
from shared.pricing.cost_model import CostModel
from shared.wire import Classification
from tests.support.answers import readiness, valid_answer
from tests.support.hostile_server import BEHAVIOURS, HostileServer, http, reset
from tests.support.mobile import answered, attempts_of
from tests.support.paths import BUNDLE, free_ports
from tests.support.played_tiers import TEXT

T = TypeVar("T")
COSTS = CostModel.paper(6)


def answers_as(tier: str, **changes: Any) -> Callable[[socket.socket, bytes, int], None]:
    """Return a behaviour that answers every attempt, with ``changes``."""

    def behave(connection: socket.socket, body: bytes, _number: int) -> None:
        if not body:  # a probe of /readyz
            connection.sendall(http(json.dumps(readiness(tier)).encode()))
            return
        answer = valid_answer(json.loads(body)["attempt_id"], tier) | changes
        connection.sendall(http(json.dumps(answer).encode()))

    return behave


def run(
    folder: Path, edge: HostileServer, cloud: HostileServer, work: Callable[..., Awaitable[T]]
) -> tuple[T, list[LedgerEntry]]:
    """Return the result of ``work`` with a mobile in uvloop, and the mobile's entries."""
    settings = MobileSettings(
        bundle=BUNDLE,
        state_dir=folder,
        ledger_url=f"http://127.0.0.1:{free_ports(1)[0]}",
        edge_url=edge.url,
        cloud_url=cloud.url,
        policy="edge",
        deadline_ms=60_000,
    )

    async def main() -> T:
        mobile = MobileService(settings)
        try:
            return await work(mobile)
        finally:
            await mobile.close(flush_s=0)

    result = uvloop.run(main())
    outbox = Outbox.claim(folder / "mobile", "mobile")
    entries = [LedgerEntry.model_validate_json(row[3]) for row in outbox.pending(1_000)]
    outbox.close()
    return result, [entry for entry in entries if entry.side is Side.CALLER]


async def classify(mobile: MobileService) -> Classification:
    (outcome,) = await mobile.classify([TEXT], options=RequestOptions())
    return answered(outcome)


CASES = {
    name: BEHAVIOURS[name]
    for name in (
        "resets without an answer",
        "closes within the body",
        "sends garbage",
        "floods with 100 Continue",
        "answers 404 in our own shape",
        "answers deep JSON",
    )
} | {
    "an unknown label": answers_as("edge", label="neutral"),
    "exit layer -1": answers_as("edge", exit_layer=-1),
    "a layer that the edge does not run": answers_as("edge", exit_layer=4),
    "NaN confidence": answers_as("edge", confidence=float("nan")),
    "the answer of another attempt": answers_as("edge", attempt_id="another"),
    "another bundle": answers_as("edge", bundle_id="0" * 16),
    "the cloud's answer": answers_as("cloud"),
    "costly milliseconds": answers_as("edge", compute_ms=1e300),
}


@pytest.mark.parametrize("name", CASES)
def test_wrong_answer_of_the_edge_fails_over_and_is_paid_once(name: str, tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> tuple[Classification, int]:
        answer = await classify(mobile)
        return answer, mobile.runtime.tier_stats.replicas[Tier.EDGE][0].breaker.failures

    with HostileServer(CASES[name]) as edge, HostileServer(answers_as("cloud")) as cloud:
        (answer, failures), entries = run(tmp_path, edge, cloud, work)
    assert attempts_of(answer) == [("edge", "route", "failed"), ("cloud", "fail_over", "answered")]
    assert answer.failed_over
    assert failures == 1
    assert answer.cost.cost_lambda == COSTS.offload_edge + COSTS.all_cloud
    failed, last = sorted(entries, key=lambda entry: entry.ordinal)
    assert (failed.state, failed.delivery, failed.final) == (State.FAILED, Delivery.UNKNOWN, False)
    assert (failed.cost_lambda, failed.exit_layer) == (COSTS.offload_edge, None)
    assert failed.error_code in ("tier_failed", "tier_unreachable")
    assert (last.state, last.final) == (State.ANSWERED, True)


def test_tier_that_cannot_record_its_refusal_needs_no_entry(tmp_path: Path) -> None:
    """A tier whose disk is full and that is killed then: its refusal is in no outbox."""
    refusal = json.dumps(NotReady("the disk is full").payload()).encode()

    def refuse(connection: socket.socket, _body: bytes, _number: int) -> None:
        connection.sendall(http(refusal, status="503 Service Unavailable"))

    with HostileServer(refuse) as edge, HostileServer(answers_as("cloud")) as cloud:
        answer, entries = run(tmp_path, edge, cloud, classify)
    assert attempts_of(answer) == [("edge", "route", "refused"), ("cloud", "fail_over", "answered")]
    refused, _ = sorted(entries, key=lambda entry: entry.ordinal)
    assert (refused.state, refused.delivery) == (State.REFUSED, Delivery.UNKNOWN)


def test_broken_idle_connection_is_tried_again_at_the_same_tier(tmp_path: Path) -> None:
    asked: list[str] = []

    def behave(connection: socket.socket, body: bytes, number: int) -> None:
        asked.append(json.loads(body)["attempt_id"])
        if number == 1 and len(asked) > 1:
            reset(connection)
        else:
            answers_as("edge")(connection, body, number)

    async def work(mobile: MobileService) -> tuple[Classification, int, str]:
        await classify(mobile)
        answer = await classify(mobile)
        breaker = mobile.runtime.tier_stats.replicas[Tier.EDGE][0].breaker
        return answer, breaker.failures, breaker.state

    with HostileServer(behave) as edge, HostileServer(answers_as("cloud")) as cloud:
        (answer, failures, state), entries = run(tmp_path, edge, cloud, work)
        assert (edge.connections, cloud.connections) == (2, 0)
    assert attempts_of(answer) == [("edge", "route", "failed"), ("edge", "retry", "answered")]
    assert not answer.failed_over
    assert (failures, state) == (0, "closed")
    # the tier may have begun the first attempt: the second has its own identifier and entries
    assert len(set(asked)) == len(asked) == len(entries) == 3
    assert answer.cost.cost_lambda == COSTS.offload_edge + COSTS.attempt(Tier.EDGE, 3)


def test_fresh_connection_that_breaks_as_well_fails_over(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def behave(connection: socket.socket, body: bytes, number: int) -> None:
        asked.append(body)
        if len(asked) > 1:
            reset(connection)
        else:
            answers_as("edge")(connection, body, number)

    async def work(mobile: MobileService) -> tuple[Classification, int]:
        await classify(mobile)
        answer = await classify(mobile)
        return answer, mobile.runtime.tier_stats.replicas[Tier.EDGE][0].breaker.failures

    with HostileServer(behave) as edge, HostileServer(answers_as("cloud")) as cloud:
        (answer, failures), _ = run(tmp_path, edge, cloud, work)
    assert [one.tier for one in answer.attempts] == [Tier.EDGE, Tier.EDGE, Tier.CLOUD]
    assert failures == 1
