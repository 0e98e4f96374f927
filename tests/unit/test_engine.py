"""Engine of a tier: batching, limits, cancellation and isolation of failures."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.bundle.loading import Bundle
from shared.domain import LayerRange
from shared.errors import InvalidInput, NotReady, Overloaded
from shared.inference.classifier import Classifier
from shared.inference.codec import ResumeLimits
from shared.inference.devices import CPU
from shared.inference.layers import Floats, Mask
from shared.inference.process_batcher import start_processes
from shared.tier_server.engine import Computed, Engine
from tests.support.engine import ALPHA, LONG_DEADLINE_MS, TEXTS, Gate, engine_of
from tests.support.paths import BUNDLE


@pytest.fixture(scope="module")
def classifier(bundle: Bundle) -> Classifier:
    return Classifier(bundle, LayerRange(1, 3))


@pytest.fixture(params=[1, 3], ids=["one worker", "three workers"])
def engine(classifier: Classifier, request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = engine_of(classifier, ALPHA, workers=request.param)
    yield engine
    engine.close()


@pytest.fixture
def processes(bundle: Bundle, classifier: Classifier) -> Iterator[Engine]:
    batchers = start_processes(bundle, LayerRange(1, 3), [CPU] * 2)
    engine = Engine(classifier.encoder, batchers, ALPHA, max_queue=1000)
    yield engine
    engine.close()


async def run_all(engine: Engine, texts: list[str]) -> list[Computed]:
    return await asyncio.gather(*(engine.run(text, None, LONG_DEADLINE_MS) for text in texts))


def test_batched_texts_get_the_answers_of_single_texts(
    engine: Engine, classifier: Classifier
) -> None:
    check_answers(engine, classifier)


def test_worker_processes_give_the_same_answers(processes: Engine, classifier: Classifier) -> None:
    check_answers(processes, classifier)


def test_engine_whose_workers_cannot_start_again_says_so_and_recovers(
    bundle: Bundle, classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an error of a GPU that stays; here the bundle's layers are gone for a while."""
    monkeypatch.setattr("shared.inference.process_batcher.RESTART_PAUSE_S", 0.01)
    copy = tmp_path / "bundle"
    shutil.copytree(BUNDLE, copy)
    (worker,) = start_processes(
        Bundle(copy, bundle.manifest, bundle.bundle_id), LayerRange(1, 3), [CPU]
    )
    engine = Engine(classifier.encoder, [worker], ALPHA, max_queue=1000)

    async def ask() -> Computed:
        return await asyncio.wait_for(engine.run(TEXTS[0], None, LONG_DEADLINE_MS), 60)

    def until(down: bool) -> None:
        for _ in range(6_000):
            if engine.down is down:
                return
            time.sleep(0.01)
        raise AssertionError(f"down is not {down}")

    try:
        assert asyncio.run(ask()).prediction
        (copy / "layers").rename(copy / "gone")
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(NotReady, match="worker process ended"):
            asyncio.run(ask())
        until(down=True)
        with pytest.raises(NotReady, match="no worker process can be started"):
            asyncio.run(ask())
        (copy / "gone").rename(copy / "layers")
        until(down=False)
        assert asyncio.run(ask()).prediction
        (copy / "layers").rename(copy / "gone")
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(NotReady):
            asyncio.run(ask())
    finally:
        closing = threading.Thread(target=engine.close, daemon=True)
        closing.start()
        closing.join(60)
    assert not closing.is_alive()


def check_answers(engine: Engine, classifier: Classifier) -> None:
    together = asyncio.run(run_all(engine, TEXTS * 3))
    for text, computed in zip(TEXTS * 3, together, strict=True):
        row = classifier.encoder.encode(text)
        (alone,) = classifier.classify([row], ALPHA)
        if abs(alone.confidence - ALPHA) > 0.02:
            assert computed.prediction.exit_layer == alone.exit_layer
        if computed.prediction.exit_layer == alone.exit_layer and alone.confidence > 0.52:
            assert computed.prediction.label_index == alone.label_index
        assert computed.tokens == row.tokens
        assert computed.queue_ms >= 0
        assert computed.compute_ms > 0


def test_workers_run_at_the_same_time(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2)
    run_layer = classifier.layers.run_layer

    def run_together(layer: int, hidden_BTH: Floats, mask_BT: Mask) -> tuple[Floats, Floats]:
        together.wait(30)
        return run_layer(layer, hidden_BTH, mask_BT)

    monkeypatch.setattr(classifier.layers, "run_layer", run_together)
    engine = engine_of(classifier, None, workers=2)
    answers = asyncio.run(run_all(engine, TEXTS[:2]))
    engine.close()
    assert [one.prediction.exit_layer for one in answers] == [3, 3]


def test_waiting_texts_are_batched(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(classifier, monkeypatch)
    engine = engine_of(classifier, ALPHA)

    async def send_all() -> None:
        first = asyncio.create_task(engine.run(TEXTS[0], None, LONG_DEADLINE_MS))
        await asyncio.to_thread(gate.reached.wait, 30)
        others = [
            asyncio.create_task(engine.run(TEXTS[1], None, LONG_DEADLINE_MS)) for _ in range(16)
        ]
        await asyncio.sleep(0)  # they are in the queue now
        gate.open.set()
        await asyncio.gather(first, *others)

    asyncio.run(send_all())
    engine.close()
    assert gate.sizes[0] == 1
    assert max(gate.sizes) == 8
    assert sum(gate.sizes) == 17


def test_cancelled_texts_are_dropped(
    engine: Engine, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(classifier, monkeypatch)

    async def cancel_two() -> Computed:
        first = asyncio.create_task(engine.run(TEXTS[0], None, LONG_DEADLINE_MS))
        await asyncio.to_thread(gate.reached.wait, 30)
        waiting = asyncio.create_task(engine.run(TEXTS[1], None, LONG_DEADLINE_MS))
        await asyncio.sleep(0)
        first.cancel()
        waiting.cancel()
        gate.open.set()
        return await engine.run(TEXTS[2], None, LONG_DEADLINE_MS)

    assert asyncio.run(cancel_two()).prediction.exit_layer <= 3
    assert sum(gate.sizes) == 2  # the text cancelled in the queue never ran


def test_invalid_state_fails_alone(engine: Engine, bundle: Bundle) -> None:
    limits = ResumeLimits(bundle.bundle_id, 384, 256, 3)

    async def both() -> list[object]:
        bad = engine.resume(b"not a tensor", limits, LONG_DEADLINE_MS)
        good = engine.run(TEXTS[0], None, LONG_DEADLINE_MS)
        return list(await asyncio.gather(bad, good, return_exceptions=True))

    bad, good = asyncio.run(both())
    assert isinstance(bad, InvalidInput)
    assert isinstance(good, Computed)


def test_failing_layer_fails_only_the_text_that_causes_it(
    engine: Engine, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_layer = classifier.layers.run_layer
    length = classifier.encoder.encode(TEXTS[0]).tokens
    other_texts = [text for text in TEXTS[1:9] if classifier.encoder.encode(text).tokens != length]

    def fail_for_length(layer: int, hidden_BTH: Floats, mask_BT: Mask) -> tuple[Floats, Floats]:
        if (mask_BT.sum(1) == length).any():
            raise RuntimeError("bad tensor")
        return run_layer(layer, hidden_BTH, mask_BT)

    monkeypatch.setattr(classifier.layers, "run_layer", fail_for_length)

    async def send_all() -> list[object]:
        work = [engine.run(text, None, LONG_DEADLINE_MS) for text in [TEXTS[0], *other_texts]]
        return list(await asyncio.gather(*work, return_exceptions=True))

    failed, *answered = asyncio.run(send_all())
    assert isinstance(failed, RuntimeError)
    assert all(isinstance(one, Computed) for one in answered)


def test_full_queue_and_closed_engine_refuse_texts(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(classifier, None, max_queue=3)
    gate = Gate(classifier, monkeypatch)

    async def send_all() -> list[object]:
        first = asyncio.create_task(engine.run(TEXTS[0], None, LONG_DEADLINE_MS))
        await asyncio.to_thread(gate.reached.wait, 30)
        work = [asyncio.create_task(engine.run(TEXTS[1], None, LONG_DEADLINE_MS)) for _ in range(5)]
        await asyncio.sleep(0)
        gate.open.set()
        return list(await asyncio.gather(first, *work, return_exceptions=True))

    outcomes = asyncio.run(send_all())
    assert sum(isinstance(one, Overloaded) for one in outcomes) == 2
    assert sum(isinstance(one, Computed) for one in outcomes) == 4
    engine.close()
    with pytest.raises(NotReady, match="closing"):
        asyncio.run(engine.run(TEXTS[0], None, LONG_DEADLINE_MS))
