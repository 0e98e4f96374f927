"""Texts of a load test, the accuracy of their answers, and a run without an answer."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from shared.domain import InputText
from shared.errors import DimeeError, InvalidInput
from testbed.load.accuracy import accuracy_of, wilson_interval
from testbed.load.cli import load
from testbed.load.sample import Sample
from testbed.load.texts import MADE_TEXTS, in_passes, texts_to_send
from testbed.texts import sample_sentences, texts_for
from tests.support.descriptions import PAIRS, SINGLE, with_samples

SAMPLES = (InputText("a", "b", "yes"), InputText("c", "d", "no"))


def test_texts_are_those_of_the_file_then_of_the_bundle_then_made(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("x\ty\n")
    bundle = with_samples(PAIRS, *SAMPLES)
    assert texts_for(bundle, file) == [InputText("x", "y")]
    assert texts_for(bundle) == texts_to_send(bundle, None, {}, 1) == list(SAMPLES)
    assert [text.text for text in texts_for(SINGLE)] == sample_sentences()
    made = texts_to_send(SINGLE, None, {}, 1)
    assert len(made) == MADE_TEXTS
    assert made == texts_to_send(SINGLE, None, {}, 1) != texts_to_send(SINGLE, None, {}, 2)
    for choose in (lambda: texts_for(PAIRS), lambda: texts_to_send(PAIRS, None, {}, 1)):
        with pytest.raises(InvalidInput, match="--texts FILE"):
            choose()


def test_every_text_is_sent_before_one_is_sent_again() -> None:
    texts = [InputText(str(number)) for number in range(7)]
    chosen = in_passes(texts, 17, random.Random(1))
    assert Counter(chosen[:7]) == Counter(chosen[7:14]) == Counter(texts)
    assert len(chosen) == 17
    assert len(set(chosen[14:])) == 3
    assert (
        chosen == in_passes(texts, 17, random.Random(1)) != in_passes(texts, 17, random.Random(2))
    )


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (95, 100, 0.8882, 0.9785),
    ],
)
def test_wilson_interval(right: int, count: int, low: float, high: float) -> None:
    """Reference: ``scipy.stats.binomtest(right, count).proportion_ci(method="wilson")``."""
    assert wilson_interval(right / count, count) == pytest.approx((low, high), abs=1e-4)


def sample(number: int, text: InputText, label: str | None) -> Sample:
    return Sample(number, 0.0, text, label=label)


def test_accuracy_counts_answers_to_labelled_texts_and_different_texts() -> None:
    yes, no = SAMPLES
    unlabelled = InputText("e", "f")
    samples = [
        sample(0, yes, "yes"), sample(1, yes, "yes"), sample(2, yes, "no"), sample(3, no, "no"),
        sample(4, no, None), sample(5, unlabelled, "no"),
    ]  # fmt: skip
    found = accuracy_of(samples)
    assert found is not None
    assert (found["share"], found["texts"], found["answers"]) == (0.75, 2, 4)
    assert (found["low"], found["high"]) == wilson_interval(0.75, 2)
    assert accuracy_of(samples[4:]) is None


class Refusing(BaseHTTPRequestHandler):
    """A gateway that refuses every text."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/v1/bundle":
            self._send(200, with_samples(PAIRS, *SAMPLES).model_dump_json().encode())
        else:
            self._send(200, b'{"policy": "cascade-routing"}')

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert (body["texts"], body["pairs"]) in ((["a"], ["b"]), (["c"], ["d"]))
        self._send(503, b'{"error": {"code": "tier_unreachable", "message": "no tier answers"}}')

    def _send(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def refusing_gateway() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_run_without_an_answer_writes_its_report_and_fails(
    refusing_gateway: str, tmp_path: Path
) -> None:
    out = tmp_path / "load"
    options = ["--url", refusing_gateway, "--rate", "20", "--duration", "1", "--out", str(out)]
    found = CliRunner().invoke(load, options)
    assert isinstance(found.exception, DimeeError), found.output
    assert "none of" in found.exception.message
    assert "requests was answered (unavailable" in found.exception.message
    report = json.loads(out.with_suffix(".json").read_text())
    assert report["answered_share"] == 0
    assert report["error_codes"] == {"tier_unreachable": report["requests"]}
    assert "answered 0.00%" in found.output
    assert "no labelled text was answered" in out.with_suffix(".html").read_text()
