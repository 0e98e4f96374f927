"""Layers in a process of their own: the same answers, and what its end costs."""

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
from shared.inference.layer_batcher import LayerBatcher, Row
from shared.inference.process_batcher import ProcessBatcher, start_processes
from testbed.demo import sample_sentences
from tests.support.paths import BUNDLE

TEXTS = sample_sentences()[:12]
Outcomes = dict[Row, Prediction | Exception]


@pytest.fixture
def process(bundle: Bundle) -> Iterator[ProcessBatcher]:
    (flow,) = start_processes(bundle, LayerRange(1, 3), 1)
    yield flow
    flow.close()


@pytest.fixture(scope="module")
def classifier(bundle: Bundle) -> Classifier:
    return Classifier(bundle, LayerRange(1, 3))


def run(flow: LayerBatcher | ProcessBatcher, rows: list[Row], yields: bool = False) -> Outcomes:
    flow.admit(rows, yields=yields)
    done: Outcomes = {}
    while not flow.idle:
        done |= dict(flow.step())
    return done


def rows_of(classifier: Classifier) -> list[Row]:
    """Texts at three thresholds, and a state after layer 1."""
    encoded = [classifier.encoder.encode(text) for text in TEXTS]
    rows = [Row(one, 0, (None, 0.8, 0.99)[i % 3]) for i, one in enumerate(encoded)]
    hidden_BTH, mask_BT = classifier.embeddings.first_hidden(encoded[:1])
    after_BTH, _ = classifier.layers.run_layer(1, hidden_BTH, mask_BT)
    return [*rows, Row(after_BTH[0], 1, 0.9)]


def test_it_answers_as_a_flow_in_this_thread(
    process: ProcessBatcher, classifier: Classifier
) -> None:
    here, there = rows_of(classifier), rows_of(classifier)
    expected = run(LayerBatcher(classifier.layers, embeddings=classifier.embeddings), here)
    found = run(process, there)
    assert set(found) == set(there)
    for one, other in zip(here, there, strict=True):
        assert found[other] == expected[one]
        assert other.compute_ms > 0


def niceness(pid: int) -> set[int]:
    """Of each thread of a process."""
    stats = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {int(stat.rpartition(")")[2].split()[16]) for stat in stats}


def test_in_an_overload_it_yields_and_answers_the_same(
    process: ProcessBatcher, classifier: Classifier
) -> None:
    before = niceness(process.pid)

    def answers(yields: bool) -> list[Prediction | Exception]:
        rows = rows_of(classifier)
        found = run(process, rows, yields)
        return [found[row] for row in rows]

    usual = answers(yields=False)
    assert max(niceness(process.pid)) == max(before)
    assert answers(yields=True) == usual
    assert max(niceness(process.pid)) == min(19, max(before) + NICE)
    assert answers(yields=False) == usual


def test_who_is_dropped_is_not_answered(process: ProcessBatcher, classifier: Classifier) -> None:
    rows = rows_of(classifier)
    process.admit(rows)
    process.drop({rows[0], rows[1]})
    done: Outcomes = {}
    while not process.idle:
        done |= dict(process.step())
    assert set(done) == set(rows[2:])


def test_what_is_chosen_early_follows_what_is_under_way(
    process: ProcessBatcher, classifier: Classifier
) -> None:
    encoded = [classifier.encoder.encode(text) for text in TEXTS]
    first, then = [Row(one, 0, None) for one in encoded[:8]], [Row(one, 0, None) for one in encoded]
    process.admit(first)
    while not process.takes_early:
        assert process.step() == []
    process.admit(then)
    process.drop({then[0], then[9]})
    assert not process.takes_early, "one batch ahead is enough"
    order: list[Row] = []
    while not process.idle:
        order += [row for row, _ in process.step()]
    assert set(order[:8]) == set(first)
    assert set(order[8:]) == set(then) - {then[0], then[9]}


def test_a_killed_process_is_started_again(
    process: ProcessBatcher, classifier: Classifier, caplog: pytest.LogCaptureFixture
) -> None:
    killed = process.pid
    os.kill(killed, signal.SIGKILL)
    lost = run(process, rows_of(classifier)[:2])
    assert [type(outcome) for outcome in lost.values()] == [NotReady, NotReady]
    assert "ended" in caplog.text
    assert process.pid != killed
    answered = run(process, rows_of(classifier))
    assert all(isinstance(outcome, Prediction) for outcome in answered.values())


def test_a_row_that_cannot_be_run_is_an_error(
    process: ProcessBatcher, classifier: Classifier
) -> None:
    before = process.pid
    odd = Row(np.zeros((4, 7), np.float32), 1, None)  # 7 is not the hidden size
    assert [type(outcome) for outcome in run(process, [odd]).values()] == [RuntimeError]
    good = Row(classifier.encoder.encode(TEXTS[0]), 0, None)
    assert isinstance(run(process, [good])[good], Prediction)
    assert process.pid == before


def test_layers_that_cannot_be_run_are_refused_at_start(bundle: Bundle, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(BUNDLE, copy)
    (copy / "layers" / "02.onnx").write_bytes(b"no layer")
    with pytest.raises(BundleError, match="is damaged"):
        start_processes(Bundle(copy, bundle.manifest, bundle.bundle_id), LayerRange(1, 3), 2)


SERVER = """
import sys
from pathlib import Path
from shared.domain import LayerRange
from shared.inference.process_batcher import ProcessBatcher
flow = ProcessBatcher(Path(sys.argv[1]), LayerRange(1, 1))
flow.await_ready()
print(flow.pid, flush=True)
sys.stdin.read()
"""


def test_it_does_not_outlive_a_killed_server() -> None:
    # the layers' process holds the pipe as well: it is closed when both have ended
    command = [sys.executable, "-c", SERVER, str(BUNDLE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        os.kill(pid, 0)
        server.kill()
        assert server.stdout.read() == b""
