"""Worker processes of `ProcessBatcher`: answers, priority, order and restarts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shared.bundle.loading import Bundle
from shared.domain import LayerRange, Prediction
from shared.errors import BundleError, NotReady
from shared.inference.batcher_worker import NICE
from shared.inference.classifier import Classifier
from shared.inference.devices import CPU
from shared.inference.layer_batcher import LayerBatcher, Row
from shared.inference.process_batcher import ProcessBatcher, start_processes
from testbed.texts import sample_sentences
from tests.support.paths import BUNDLE

TEXTS = sample_sentences()[:12]
Outcomes = dict[Row, Prediction | Exception]


@pytest.fixture
def process(bundle: Bundle) -> Iterator[ProcessBatcher]:
    (batcher,) = start_processes(bundle, LayerRange(1, 3), [CPU])
    yield batcher
    batcher.close()


@pytest.fixture(scope="module")
def classifier(bundle: Bundle) -> Classifier:
    return Classifier(bundle, LayerRange(1, 3))


def run(
    batcher: LayerBatcher | ProcessBatcher, rows: list[Row], low_priority: bool = False
) -> Outcomes:
    batcher.admit(rows, low_priority=low_priority)
    done: Outcomes = {}
    while not batcher.idle:
        done |= dict(batcher.step())
    return done


def rows_of(classifier: Classifier) -> list[Row]:
    """Return texts at three thresholds, and a state after layer 1."""
    encoded = [classifier.encoder.encode(text) for text in TEXTS]
    rows = [Row(one, 0, (None, 0.8, 0.99)[i % 3]) for i, one in enumerate(encoded)]
    hidden_BTH, mask_BT = classifier.embeddings.first_hidden(encoded[:1])
    after_BTH, _ = classifier.layers.run_layer(1, hidden_BTH, mask_BT)
    return [*rows, Row(after_BTH[0], 1, 0.9)]


def test_answers_are_those_of_a_layer_batcher(
    process: ProcessBatcher, classifier: Classifier
) -> None:
    local, remote = rows_of(classifier), rows_of(classifier)
    expected = run(LayerBatcher(classifier.layers, embeddings=classifier.embeddings), local)
    found = run(process, remote)
    assert set(found) == set(remote)
    for one, other in zip(local, remote, strict=True):
        assert found[other] == expected[one]
        assert other.compute_ms > 0


def niceness(pid: int) -> set[int]:
    """Return the niceness of each thread of a process."""
    stats = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {int(stat.rpartition(")")[2].split()[16]) for stat in stats}


def test_low_priority_raises_the_niceness_and_keeps_the_answers(
    process: ProcessBatcher, classifier: Classifier
) -> None:
    before = niceness(process.pid)

    def answers(low_priority: bool) -> list[Prediction | Exception]:
        rows = rows_of(classifier)
        found = run(process, rows, low_priority)
        return [found[row] for row in rows]

    usual = answers(low_priority=False)
    assert max(niceness(process.pid)) == max(before)
    assert answers(low_priority=True) == usual
    assert max(niceness(process.pid)) == min(19, max(before) + NICE)
    assert answers(low_priority=False) == usual


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="numpy has one thread on one core")
def test_worker_has_one_thread(process: ProcessBatcher, classifier: Classifier) -> None:
    """On a host with 64 cores, numpy would have 64 threads, whatever the CPU quota is."""
    run(process, rows_of(classifier))
    assert len(list(Path(f"/proc/{process.pid}/task").iterdir())) == 1


def test_dropped_rows_are_not_answered(process: ProcessBatcher, classifier: Classifier) -> None:
    rows = rows_of(classifier)
    process.admit(rows)
    process.drop({rows[0], rows[1]})
    done: Outcomes = {}
    while not process.idle:
        done |= dict(process.step())
    assert set(done) == set(rows[2:])


def test_next_batch_runs_after_the_current_one(
    process: ProcessBatcher, classifier: Classifier
) -> None:
    encoded = [classifier.encoder.encode(text) for text in TEXTS]
    first, second = (
        [Row(one, 0, None) for one in encoded[:8]],
        [Row(one, 0, None) for one in encoded],
    )
    process.admit(first)
    while not process.accepts_next_batch:
        assert process.step() == []
    process.admit(second)
    process.drop({second[0], second[9]})
    assert not process.accepts_next_batch, "only one batch is accepted ahead"
    order: list[Row] = []
    while not process.idle:
        order += [row for row, _ in process.step()]
    assert set(order[:8]) == set(first)
    assert set(order[8:]) == set(second) - {second[0], second[9]}


def test_killed_process_is_restarted_and_its_rows_fail(
    process: ProcessBatcher, classifier: Classifier, caplog: pytest.LogCaptureFixture
) -> None:
    killed = process.pid
    os.kill(killed, signal.SIGKILL)
    lost = run(process, rows_of(classifier)[:2])
    assert [type(outcome) for outcome in lost.values()] == [NotReady, NotReady]
    assert "ended" in caplog.text
    # they fail before another process has loaded its layers, which takes long on a GPU
    assert (process.pid, process.accepts_rows) == (killed, False)
    assert process.step() == []
    assert process.pid != killed
    assert process.accepts_rows
    answered = run(process, rows_of(classifier))
    assert all(isinstance(outcome, Prediction) for outcome in answered.values())


def test_invalid_row_fails_with_an_error(process: ProcessBatcher, classifier: Classifier) -> None:
    before = process.pid
    invalid = Row(np.zeros((4, 7), np.float32), 1, None)  # 7 is not the hidden size
    assert [type(outcome) for outcome in run(process, [invalid]).values()] == [RuntimeError]
    valid = Row(classifier.encoder.encode(TEXTS[0]), 0, None)
    assert isinstance(run(process, [valid])[valid], Prediction)
    assert process.pid == before


def test_damaged_layers_are_refused_at_start(bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(BUNDLE, copy)
    (copy / "layers" / "02.onnx").write_bytes(b"no layer")
    with pytest.raises(BundleError, match="is damaged"):
        start_processes(
            Bundle(copy, bundle.manifest, bundle.bundle_id), LayerRange(1, 3), [CPU] * 2
        )


def test_worker_does_not_start_with_a_bundle_that_replaced_the_first(bundle: Bundle) -> None:
    first = Bundle(BUNDLE, bundle.manifest, "0123456789abcdef")
    with pytest.raises(BundleError, match="is not the bundle 0123456789abcdef with which this"):
        start_processes(first, LayerRange(1, 1), [CPU])


SERVER = """
import sys
from shared.bundle.loading import load_bundle
from shared.domain import LayerRange
from shared.inference.process_batcher import ProcessBatcher
batcher = ProcessBatcher(load_bundle(sys.argv[1]), LayerRange(1, 1))
batcher.await_ready()
print(batcher.pid, flush=True)
sys.stdin.read()
"""


def test_process_ends_when_its_server_is_killed() -> None:
    # the worker process also holds the pipe, which is closed when both have ended
    command = [sys.executable, "-c", SERVER, str(BUNDLE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        os.kill(pid, 0)
        server.kill()
        assert server.stdout.read() == b""
