"""Audits run later, are recorded separately, and neither fail nor delay requests."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from mobile_client.monitoring.audit import BATCH_AUDITS, MAX_WAITING, is_audited
from mobile_client.monitoring.certificate_monitor import monitor_state_file
from mobile_client.options import ResolvedOptions
from mobile_client.service import MobileService, _Call
from shared.bundle.loading import Bundle
from shared.domain import Reason, Side, State, Tier
from shared.ledger.server.summary import summarise
from shared.ledger.server.verify import verify
from shared.wire import Classification
from tests.support.certificates import (
    TEXTS,
    Cloud,
    asked,
    audited_settings,
    certificate_id,
    written,
)
from tests.support.mobile import Handler, World
from tests.support.played_tiers import plays


def test_audit_runs_later_and_is_recorded_separately(bundle: Bundle, tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> tuple[list[Classification], int, dict[str, Any]]:
        answers = await asked(mobile, TEXTS[:10])
        before = mobile.monitor.auditor.waiting
        await mobile.monitor.auditor.drain()
        return answers, before, mobile.monitor.health().model_dump()

    world = World(tmp_path, up=("edge", "cloud"), settings=audited_settings(bundle, tmp_path))
    answers, waiting, health = world.run(work)
    assert {(answer.degraded, answer.certificate_id) for answer in answers} == {
        (False, certificate_id(world))
    }
    assert waiting == 10
    assert [attempt.reason for answer in answers for attempt in answer.attempts] == (
        [Reason.ROUTE] * 10
    )
    assert health["audits"]["seen"] == health["audits"]["sent"] == 10
    store = world.ledger()
    assert verify(store).consistent
    by_id = {answer.request_id: answer for answer in answers}
    differing = 0
    for answer in answers:
        rows = store.request_entries(answer.request_id)
        assert [(r.ordinal, r.side, r.reason) for r in rows if r.ordinal == 2] == [
            (2, Side.CALLER, Reason.AUDIT),
            (2, Side.TIER, None),
        ]
        audit = next(r for r in rows if r.ordinal == 2 and r.side is Side.CALLER)
        assert (audit.tier, audit.state, audit.final) == (Tier.CLOUD, State.ANSWERED, False)
        assert (audit.cost_lambda, audit.all_cloud_lambda) == (18.0, None)
        assert (audit.certificate_id, audit.degraded) == (certificate_id(world), False)
        differing += audit.label != by_id[answer.request_id].label
    report = summarise(store)
    store.close()
    assert health["audits"]["differ"] == report.audits.differ == differing
    assert (report.audits.attempts, report.audits.compared) == (10, 10)
    assert report.audits.cost_lambda == 180.0
    # costs, tiers and durations of answers exclude audits
    assert report.cost_lambda == pytest.approx(sum(one.cost.cost_lambda for one in answers))
    assert report.all_cloud_lambda == 180.0
    assert (report.requests, report.answered, report.escalated, report.degraded) == (10, 10, 0, 0)
    assert sum(report.answered_by_tier.values()) == 10
    assert report.attempts_by_reason == {"route": 10}
    assert report.attempts_by_state == {"answered": 10}
    assert "cloud" not in {one.tier for one in report.durations}


def test_cloud_answers_count_without_an_audit(bundle: Bundle, tmp_path: Path) -> None:
    file = written(bundle, tmp_path, thresholds={"cost_weight": 0.0, "alpha": 1.0})
    cloud = Cloud(bundle, bundle.manifest.labels[0])

    async def work(mobile: MobileService) -> tuple[list[Classification], Any]:
        answers = await asked(mobile, TEXTS)
        await mobile.monitor.auditor.drain()
        return answers, mobile.monitor.health().audits

    settings = {"certificate": file, "audit_share": 1.0, "fail_over": ("cloud",)}
    answers, audits = World(tmp_path, played={"cloud": cloud}, settings=settings).run(work)
    from_cloud = sum(answer.tier is Tier.CLOUD for answer in answers)
    assert from_cloud > 0
    assert audits.seen == len(TEXTS)
    assert audits.sent == len(TEXTS) - from_cloud
    assert len(cloud.asked) == len(TEXTS)


def test_failed_audit_is_counted_and_harmless(bundle: Bundle, tmp_path: Path) -> None:
    world = World(tmp_path, up=("edge",), settings=audited_settings(bundle, tmp_path))

    async def work(mobile: MobileService) -> Any:
        await asked(mobile, TEXTS[:3])
        await mobile.monitor.auditor.drain()
        return mobile.monitor.health().audits

    audits = world.run(work)
    assert (audits.sent, audits.failed, audits.seen) == (3, 3, 0)
    store = world.ledger()
    assert verify(store).consistent
    report = summarise(store)
    store.close()
    assert (report.failed, report.audits.attempts, report.audits.compared) == (0, 3, 0)
    assert report.audits.cost_lambda == 0  # nothing was sent


def test_audit_goes_to_another_cloud_if_one_cannot_be_reached(tmp_path: Path) -> None:
    settings = {
        "policy": "mobile",
        "audit_share": 1.0,
        "cloud_url": "http://cloud-1,http://cloud-2",
    }
    world = World(tmp_path, played={"cloud-2": plays("answers", "cloud")}, settings=settings)

    async def work(mobile: MobileService) -> Any:
        await asked(mobile, TEXTS[:6])
        await mobile.monitor.auditor.drain()
        return mobile.monitor.health().audits

    audits = world.run(work)
    assert (audits.sent, audits.seen, audits.failed) == (6, 6, 0)
    attempts = [one for one in world.entries() if one.reason is Reason.AUDIT]
    assert sum(one.state is State.ANSWERED for one in attempts) == 6
    assert len(attempts) > 6


def test_running_audits_are_abandoned_at_shutdown(bundle: Bundle, tmp_path: Path) -> None:
    hung = asyncio.Event()

    async def hang(_: httpx.Request) -> httpx.Response:
        hung.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def work(mobile: MobileService) -> MobileService:
        await asked(mobile, TEXTS[:BATCH_AUDITS])
        await hung.wait()  # a full batch is sent at once
        return mobile

    played: dict[str, Handler] = {"cloud": hang}
    settings = audited_settings(bundle, tmp_path)
    world = World(tmp_path, up=("edge",), played=played, settings=settings)
    mobile = world.run(work)
    counts = mobile.monitor._state.counts
    assert (counts.seen, counts.failed + counts.dropped) == (0, BATCH_AUDITS)
    audits = [entry for entry in world.entries() if entry.reason is Reason.AUDIT]
    assert {entry.state for entry in audits} == {State.ABANDONED}
    assert not any(entry.final for entry in audits)
    store = world.ledger()
    assert verify(store).consistent
    store.close()


def test_open_audit_of_a_killed_mobile_is_abandoned(bundle: Bundle, tmp_path: Path) -> None:
    """The audited request keeps its final attempt."""
    held: list[MobileService] = []

    def look(_: httpx.Request) -> httpx.Response:
        outbox = held[0].outbox
        rows = [json.loads(one[3]) for one in outbox.pending(100)]
        opened.extend(one for one in rows if one.get("reason") == "audit")
        return httpx.Response(503)

    opened: list[dict[str, Any]] = []

    async def work(mobile: MobileService) -> None:
        held.append(mobile)
        await asked(mobile, TEXTS[:1])
        await mobile.monitor.auditor.drain()
        mobile.outbox._table._db.execute(
            "UPDATE outbox SET terminal = 0, body = ? WHERE attempt_id = ? AND side = 'caller'",
            (json.dumps(opened[0]), opened[0]["attempt_id"]),
        )

    settings = audited_settings(bundle, tmp_path)
    world = World(tmp_path, up=("edge",), played={"cloud": look}, settings=settings)
    world.run(work)
    assert opened[0]["state"] == "open"
    (audit,) = [entry for entry in world.entries() if entry.reason is Reason.AUDIT]
    assert (audit.state, audit.final) == (State.ABANDONED, False)


def test_full_audit_queue_drops_the_oldest(bundle: Bundle, tmp_path: Path) -> None:
    texts = [f"{text} {number}" for number in range(12) for text in TEXTS]
    world = World(tmp_path, up=("edge",), settings=audited_settings(bundle, tmp_path))

    async def work(mobile: MobileService) -> tuple[int, int]:
        async with mobile.monitor.auditor._drain_lock:  # prevents audits
            await asked(mobile, texts)
            return mobile.monitor.auditor.waiting, mobile.monitor.health().audits.dropped

    assert world.run(work) == (MAX_WAITING, len(texts) - MAX_WAITING)


def test_losses_are_recorded_in_the_order_of_requests(bundle: Bundle, tmp_path: Path) -> None:
    """The loss of a fast answer is recorded after those of earlier, slower requests."""

    async def work(mobile: MobileService) -> tuple[list[int], list[str]]:
        policy = mobile.runtime.make_policy("cascade-routing")
        call = _Call(policy, ResolvedOptions("cascade-routing", 5_000), True, "mobile", None)
        requests = [mobile._route(mobile._prepare(0, text, None), call) for text in TEXTS[:4]]
        waiting = []
        for request in reversed(requests):
            answer = await mobile._runner.answer(request, policy, 5_000, time.perf_counter())
            # the third request gets no answer and must not block the others
            mobile.monitor.request_ended(request, None if request is requests[2] else answer)
            waiting.append(mobile.monitor.auditor.waiting)
        return waiting, [one.request.text for one in mobile.monitor.auditor._queue]

    world = World(tmp_path, up=("edge",), settings=audited_settings(bundle, tmp_path))
    waiting, order = world.run(work)
    assert waiting == [0, 0, 0, 3]
    assert order == [TEXTS[0], TEXTS[1], TEXTS[3]]


def test_cancelled_request_does_not_block_later_losses(bundle: Bundle, tmp_path: Path) -> None:
    hung = asyncio.Event()

    async def hang(_: httpx.Request) -> httpx.Response:
        hung.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def work(mobile: MobileService) -> tuple[int, int]:
        call = asyncio.create_task(mobile.classify(TEXTS))
        await hung.wait()
        under_way = len(mobile.monitor._pending)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        return under_way, len(mobile.monitor._pending)

    file = written(
        bundle, tmp_path, thresholds={"cost_weight": 0.0, "alpha": 1.0}
    )  # all to the cloud
    settings = {"certificate": file, "concurrency": 1}
    under_way, left = World(tmp_path, played={"cloud": hang}, settings=settings).run(work)
    assert under_way > 1
    assert left == 0


def test_audited_requests_are_seeded_across_restarts(bundle: Bundle, tmp_path: Path) -> None:
    chosen = [number for number in range(100_000) if is_audited(number, 0.01)]
    assert 900 < len(chosen) < 1100
    assert not any(is_audited(number, 0.0) for number in range(1000))
    assert all(is_audited(number, 1.0) for number in range(1000))

    async def work(mobile: MobileService) -> int:
        await asked(mobile, TEXTS[:5])
        return mobile.monitor._state.counts.opened

    settings = {"certificate": written(bundle, tmp_path)}
    world = World(tmp_path, up=("edge",), settings=settings)
    assert [world.run(work) for _ in range(3)] == [5, 10, 15]


def test_no_audits_and_no_state_without_a_certificate(tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> Any:
        (answer,) = await asked(mobile, TEXTS[:1], policy="mobile")
        assert (answer.certificate_id, answer.degraded) == (None, False)
        return mobile.monitor.health()

    health = World(tmp_path).run(work)
    assert (health.audits.share, health.audits.bound, health.certificate) == (0.0, None, None)
    assert list((tmp_path / "mobile").glob("monitor-*")) == []


def test_audits_without_a_certificate_raise_no_alarm(bundle: Bundle, tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> Any:
        await asked(mobile, TEXTS[:6])
        await asked(mobile, TEXTS[:6], policy="edge")  # not the mobile's own policy
        await mobile.monitor.auditor.drain()
        return mobile.monitor.health()

    settings = {"policy": "mobile", "audit_share": 1.0}
    health = World(tmp_path, up=("edge", "cloud"), settings=settings).run(work)
    assert (health.audits.seen, health.audits.e_value, health.degraded) == (6, None, False)
    assert monitor_state_file(tmp_path, None).exists()


def test_other_policies_are_not_covered_by_the_certificate(bundle: Bundle, tmp_path: Path) -> None:
    async def work(mobile: MobileService) -> tuple[Classification, int]:
        (answer,) = await asked(mobile, TEXTS[:1], policy="mobile")
        return answer, mobile.monitor.auditor.waiting

    world = World(tmp_path, settings=audited_settings(bundle, tmp_path))
    answer, waiting = world.run(work)
    assert (answer.certificate_id, answer.degraded, waiting) == (None, False, 0)
    assert {entry.certificate_id for entry in world.entries()} == {None}
