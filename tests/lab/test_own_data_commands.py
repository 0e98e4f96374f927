"""From a CSV of three classes to answers, by the commands from ``train`` to ``load``."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.cli.train import export, train
from shared.bundle.loading import Bundle, load_bundle
from shared.domain import InputText
from tests.support.commands import dimee_up, dimee_with, direct_answers, write_times
from tests.support.topics import TOPICS, make_topics, write_csv

HEADER = ("phrase", "thème")


@pytest.fixture(scope="module")
def bundle(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of three topics, whose data have column names of their own."""
    folder = tmp_path_factory.mktemp("topics")
    data = write_csv(folder / "topics.csv", make_topics(600), HEADER)
    fields = ["--text-field", HEADER[0], "--label-field", HEADER[1], "--epochs", "1", "--no-bf16"]
    run = ["--encoder", str(tiny_encoder), "--out", str(folder / "run")]
    layers = ["--mobile-layers", "1", "--edge-layers", "2"]
    for command, arguments in (
        (train, ["--data", str(data), *fields, *run]),
        (export, [str(folder / "run"), str(folder / "bundle"), *layers]),
    ):
        done = CliRunner().invoke(command, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    return load_bundle(folder / "bundle")


def test_samples_cover_the_labels_by_their_names(bundle: Bundle) -> None:
    assert set(bundle.manifest.labels) == set(TOPICS)
    samples = bundle.samples()
    assert 50 <= len(samples) <= 60
    assert {text.label for text in samples} == set(TOPICS)
    assert {(text.text, text.label) for text in samples} <= set(make_topics(600))


def test_file_with_the_columns_of_the_training_is_read_without_options(
    bundle: Bundle, tmp_path: Path
) -> None:
    rows = make_topics(60, seed=5)
    file = write_csv(tmp_path / "new.csv", rows, HEADER)
    done = dimee_with(
        bundle, tmp_path, "classify", "--texts", str(file), "--policy", "bert", "--json"
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line)["label"] for line in done.stdout.splitlines()]
    expected = direct_answers(bundle, [InputText(text) for text, _ in rows])
    assert answers == expected
    state = tmp_path / "state"
    with dimee_up("--state-dir", state, bundle=bundle.path, max_queue_ms=600_000) as running:
        found = subprocess.run(
            ["bash", "-c", running.first_call], capture_output=True, timeout=60, check=True
        )
        result = json.loads(found.stdout)["items"][0]["result"]
        assert set(result["probabilities"]) == set(TOPICS)
        times = write_times(tmp_path / "times", len(rows))
        options = ["--state-dir", str(tmp_path / "state"), "--texts", str(file), "--path", "cloud"]
        options += ["--arrivals", str(times), "--duration", "3", "--deadline-ms", "60000"]
        done = dimee_with(bundle, tmp_path, "load", *options, "--out", str(tmp_path / "load"))
    assert done.returncode == 0, done.stdout + done.stderr
    accuracy = json.loads((tmp_path / "load.json").read_text())["accuracy"]
    right = sum(answer == label for answer, (_, label) in zip(expected, rows, strict=True))
    assert (accuracy["texts"], accuracy["share"]) == (60, pytest.approx(right / 60))
