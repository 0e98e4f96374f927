"""Who is let into the queue: bursts are, what would only wait to die is not."""

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
from tests.support.engine import PATIENT, TEXTS, Gate, engine_of


def made(clock: Clock, workers: int = 2, max_queue_ms: float | None = 100) -> Admission:
    """A tier that serves a text in 10 ms on each worker; nobody waits longer than 100 ms."""
    admission = Admission(max_queue=256, max_queue_ms=max_queue_ms, workers=workers, now=clock)
    admission.learn(1_000, 100)
    return admission


def test_before_anything_is_measured_only_the_length_counts() -> None:
    admission = Admission(max_queue=4, max_queue_ms=1e-3, workers=1)
    for waiting in range(4):
        admission.check(waiting, deadline_ms=1e-6)
    with pytest.raises(Overloaded, match="full"):
        admission.check(4, PATIENT)


def test_the_expected_wait_counts_workers_and_what_is_in_hand() -> None:
    admission = made(Clock())
    assert admission.wait_ms(0) == 0
    assert admission.wait_ms(20) == pytest.approx(100)
    admission.under_way = 8
    assert admission.wait_ms(20) == pytest.approx(140)


def test_nobody_is_let_in_to_die() -> None:
    admission = made(Clock())
    admission.check(20, deadline_ms=101)
    with pytest.raises(Overloaded, match="longer than the deadline") as refused:
        admission.check(20, deadline_ms=99)
    assert refused.value.limit == 99
    assert refused.value.retry_after_s == 0.1


def test_an_empty_queue_takes_anyone() -> None:
    made(Clock()).check(0, deadline_ms=1e-9)


def test_a_burst_is_taken_as_far_as_it_is_served_soon() -> None:
    admission = made(Clock())
    admission.check(20, PATIENT)
    with pytest.raises(Overloaded, match="queue is 105 ms long") as refused:
        admission.check(21, PATIENT)
    assert refused.value.limit == 100


@pytest.mark.parametrize("text_ms", [0.5, 2.3, 2.4, 30])
def test_a_crowd_that_waits_for_its_answers_is_no_overload(text_ms: float) -> None:
    admission = Admission(max_queue=256, max_queue_ms=None, workers=1)
    admission.learn(100 * text_ms, 100)
    admission.under_way = 8
    for waiting in range(BURST_TEXTS - 8 + 1):
        assert not admission.congested(waiting)
        admission.check(waiting, PATIENT)
    past_both = int(max(BURST_TEXTS, QUEUE_MS / text_ms)) + 1 - 8
    if past_both < 256:
        assert admission.congested(past_both)
        with pytest.raises(Overloaded, match="long"):
            admission.check(past_both, PATIENT)


@pytest.mark.parametrize(("text_ms", "bound_ms"), [(0.5, QUEUE_MS * OVERLOAD_SHARE), (10, 240)])
def test_in_an_overload_workers_are_kept_busy(text_ms: float, bound_ms: float) -> None:
    admission = Admission(max_queue=256, max_queue_ms=None, workers=2, now=Clock())
    admission.learn(100 * text_ms, 100)
    with pytest.raises(Overloaded):
        admission.check(256, PATIENT)
    waiting = int(2 * bound_ms / text_ms)
    admission.check(waiting, PATIENT)
    with pytest.raises(Overloaded) as refused:
        admission.check(waiting + 1, PATIENT)
    assert refused.value.limit == pytest.approx(bound_ms)


def test_in_an_overload_who_is_let_in_is_served_soon() -> None:
    clock = Clock()
    admission = made(clock)
    with pytest.raises(Overloaded):
        admission.check(100, PATIENT)
    with pytest.raises(Overloaded) as refused:
        admission.check(4, PATIENT)
    assert refused.value.limit == pytest.approx(100 * OVERLOAD_SHARE)
    admission.check(3, PATIENT)


def test_the_next_burst_is_taken_when_the_overload_is_over() -> None:
    clock = Clock()
    admission = made(clock)
    with pytest.raises(Overloaded):
        admission.check(100, PATIENT)
    admission.check(0, PATIENT)  # empty for a moment: the overload is not over
    with pytest.raises(Overloaded):
        admission.check(20, PATIENT)
    clock.now += OVERLOAD_COOLDOWN_S
    admission.check(20, PATIENT)


def test_impatient_callers_make_no_overload() -> None:
    admission = made(Clock())
    with pytest.raises(Overloaded, match="deadline"):
        admission.check(19, deadline_ms=10)
    admission.check(19, PATIENT)


def test_it_learns_the_pace_of_now() -> None:
    admission = made(Clock(), workers=1)
    for _ in range(300):
        admission.learn(2.0, 1)
    assert admission.wait_ms(10) == pytest.approx(20, rel=0.3)


def test_the_engine_refuses_by_deadline_at_once(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = Classifier(bundle, LayerRange(1, 3))
    engine = engine_of(classifier, None)
    asyncio.run(engine.run(TEXTS[0], None, PATIENT))  # now a text's time is known
    gate = Gate(classifier, monkeypatch)

    async def crowd() -> tuple[float, list[object]]:
        first = asyncio.create_task(engine.run(TEXTS[0], None, PATIENT))
        await asyncio.to_thread(gate.reached.wait, 30)
        patient = [asyncio.create_task(engine.run(TEXTS[1], None, PATIENT)) for _ in range(500)]
        await asyncio.sleep(0)
        asked = time.perf_counter()
        with pytest.raises(Overloaded, match="deadline"):
            await engine.run(TEXTS[2], None, deadline_ms=1.0)
        took_s = time.perf_counter() - asked
        for one in patient[1:]:
            one.cancel()
        gate.open.set()
        return took_s, list(await asyncio.gather(first, patient[0]))

    took_s, answered = asyncio.run(crowd())
    engine.close()
    assert took_s < 1.0  # while the worker was held
    assert len(answered) == 2
    assert engine._admission.under_way == 0
