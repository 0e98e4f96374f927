"""Admission control: queue length, expected wait, deadline and overload."""

from __future__ import annotations

import asyncio
import time

import pytest

from shared.bundle.loading import Bundle
from shared.domain import LayerRange
from shared.errors import Overloaded
from shared.inference.classifier import Classifier
from shared.tier_server.admission import (
    BURST_TEXTS,
    OVERLOAD_COOLDOWN_S,
    OVERLOAD_SHARE,
    QUEUE_MS,
    Admission,
)
from tests.support.clock import Clock
from tests.support.engine import LONG_DEADLINE_MS, TEXTS, Gate, engine_of


def make_admission(clock: Clock, workers: int = 2, max_queue_ms: float | None = 100) -> Admission:
    """Return the admission of a tier that needs 10 ms a text and worker; the limit is 100 ms."""
    admission = Admission(max_queue=256, max_queue_ms=max_queue_ms, workers=workers, now=clock)
    admission.observe(1_000, 100)
    return admission


def test_only_queue_length_counts_before_a_measurement() -> None:
    admission = Admission(max_queue=4, max_queue_ms=1e-3, workers=1)
    for waiting in range(4):
        admission.check(waiting, deadline_ms=1e-6)
    with pytest.raises(Overloaded, match="full"):
        admission.check(4, LONG_DEADLINE_MS)


def test_expected_wait_counts_workers_and_running_texts() -> None:
    admission = make_admission(Clock())
    assert admission.wait_ms(0) == 0
    assert admission.wait_ms(20) == pytest.approx(100)
    admission.in_progress = 8
    assert admission.wait_ms(20) == pytest.approx(140)


def test_request_that_would_miss_its_deadline_is_refused() -> None:
    admission = make_admission(Clock())
    admission.check(20, deadline_ms=101)
    with pytest.raises(Overloaded, match="longer than the deadline") as refused:
        admission.check(20, deadline_ms=99)
    assert refused.value.limit == 99
    assert refused.value.retry_after_s == 0.1


def test_empty_queue_accepts_every_request() -> None:
    make_admission(Clock()).check(0, deadline_ms=1e-9)


def test_burst_is_accepted_up_to_the_longest_wait() -> None:
    admission = make_admission(Clock())
    admission.check(20, LONG_DEADLINE_MS)
    with pytest.raises(Overloaded, match="queue is 105 ms long") as refused:
        admission.check(21, LONG_DEADLINE_MS)
    assert refused.value.limit == 100


@pytest.mark.parametrize("text_ms", [0.5, 2.3, 2.4, 30])
def test_clients_that_wait_for_their_answers_cause_no_overload(text_ms: float) -> None:
    admission = Admission(max_queue=256, max_queue_ms=None, workers=1)
    admission.observe(100 * text_ms, 100)
    admission.in_progress = 8
    for waiting in range(BURST_TEXTS - 8 + 1):
        assert not admission.congested(waiting)
        admission.check(waiting, LONG_DEADLINE_MS)
    above_limits = int(max(BURST_TEXTS, QUEUE_MS / text_ms)) + 1 - 8
    if above_limits < 256:
        assert admission.congested(above_limits)
        with pytest.raises(Overloaded, match="long"):
            admission.check(above_limits, LONG_DEADLINE_MS)


@pytest.mark.parametrize(("text_ms", "bound_ms"), [(0.5, QUEUE_MS * OVERLOAD_SHARE), (10, 240)])
def test_overload_keeps_enough_texts_for_the_workers(text_ms: float, bound_ms: float) -> None:
    admission = Admission(max_queue=256, max_queue_ms=None, workers=2, now=Clock())
    admission.observe(100 * text_ms, 100)
    with pytest.raises(Overloaded):
        admission.check(256, LONG_DEADLINE_MS)
    waiting = int(2 * bound_ms / text_ms)
    admission.check(waiting, LONG_DEADLINE_MS)
    with pytest.raises(Overloaded) as refused:
        admission.check(waiting + 1, LONG_DEADLINE_MS)
    assert refused.value.limit == pytest.approx(bound_ms)


def test_overload_shortens_the_longest_wait() -> None:
    clock = Clock()
    admission = make_admission(clock)
    with pytest.raises(Overloaded):
        admission.check(100, LONG_DEADLINE_MS)
    with pytest.raises(Overloaded) as refused:
        admission.check(4, LONG_DEADLINE_MS)
    assert refused.value.limit == pytest.approx(100 * OVERLOAD_SHARE)
    admission.check(3, LONG_DEADLINE_MS)


def test_bursts_are_accepted_again_after_the_overload() -> None:
    clock = Clock()
    admission = make_admission(clock)
    with pytest.raises(Overloaded):
        admission.check(100, LONG_DEADLINE_MS)
    admission.check(0, LONG_DEADLINE_MS)  # an empty queue does not end the overload
    with pytest.raises(Overloaded):
        admission.check(20, LONG_DEADLINE_MS)
    clock.now += OVERLOAD_COOLDOWN_S
    admission.check(20, LONG_DEADLINE_MS)


def test_refusals_for_short_deadlines_cause_no_overload() -> None:
    admission = make_admission(Clock())
    with pytest.raises(Overloaded, match="deadline"):
        admission.check(19, deadline_ms=10)
    admission.check(19, LONG_DEADLINE_MS)


def test_expected_wait_follows_recent_measurements() -> None:
    admission = make_admission(Clock(), workers=1)
    for _ in range(300):
        admission.observe(2.0, 1)
    assert admission.wait_ms(10) == pytest.approx(20, rel=0.3)


def test_engine_refuses_by_deadline_at_once(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = Classifier(bundle, LayerRange(1, 3))
    engine = engine_of(classifier, None)
    asyncio.run(engine.run(TEXTS[0], None, LONG_DEADLINE_MS))  # measures the time of a text
    gate = Gate(classifier, monkeypatch)

    async def send_all() -> tuple[float, list[object]]:
        first = asyncio.create_task(engine.run(TEXTS[0], None, LONG_DEADLINE_MS))
        await asyncio.to_thread(gate.reached.wait, 30)
        patient = [
            asyncio.create_task(engine.run(TEXTS[1], None, LONG_DEADLINE_MS)) for _ in range(500)
        ]
        await asyncio.sleep(0)
        asked = time.perf_counter()
        with pytest.raises(Overloaded, match="deadline"):
            await engine.run(TEXTS[2], None, deadline_ms=1.0)
        took_s = time.perf_counter() - asked
        for one in patient[1:]:
            one.cancel()
        gate.open.set()
        return took_s, list(await asyncio.gather(first, patient[0]))

    took_s, answered = asyncio.run(send_all())
    engine.close()
    assert took_s < 1.0  # the refusal did not wait for the paused worker
    assert len(answered) == 2
    assert engine._admission.in_progress == 0
