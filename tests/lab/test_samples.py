"""Sample texts of a bundle: chosen from its data, written, read, left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from lab.cli.train import export
from lab.data.examples import Example
from lab.export.refit import refit
from lab.export.samples import MAX_CHARS, MAX_SAMPLES, choose_samples
from lab.models.run import Run
from shared.bundle.description import describe
from shared.bundle.loading import load_bundle
from shared.bundle.manifest import SAMPLES
from shared.domain import InputText
from shared.errors import BundleError
from tests.support.tiny_bundles import OPTIONS, export_pair_bundle

LABELS = ("red", "green", "blue")


def examples(counts: tuple[int, ...]) -> list[Example]:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return [Example(f"text {number}", None, label) for number, label in enumerate(labels)]


def confidence(count: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(4).random((count, 3), np.float32)


def test_labels_take_turns_and_the_easiest_text_is_first() -> None:
    rows = examples((500, 300, 5))
    confidence_NE = confidence(len(rows))
    chosen = choose_samples(rows, LABELS, confidence_NE, seed=1)
    counts = {label: sum(text.label == label for text in chosen) for label in LABELS}
    assert counts == {"red": 28, "green": 27, "blue": 5} or counts == {
        "red": 27,
        "green": 28,
        "blue": 5,
    }
    means = [float(confidence_NE[int(text.text.split()[1])].mean()) for text in chosen]
    assert means == sorted(means, reverse=True)
    assert chosen == choose_samples(rows, LABELS, confidence_NE, seed=1)
    assert chosen != choose_samples(rows, LABELS, confidence_NE, seed=2)


def test_more_labels_than_samples() -> None:
    labels = [f"label {number}" for number in range(100)]
    rows = examples((2,) * 100)
    chosen = choose_samples(rows, labels, confidence(200), seed=1)
    assert len({text.label for text in chosen}) == len(chosen) == MAX_SAMPLES


def test_long_and_repeated_texts_and_texts_that_cannot_be_sent_are_left_out() -> None:
    rows = [
        Example("x" * (MAX_CHARS + 1), None, 0),
        Example("a", "b" * (MAX_CHARS + 1), 0),
        Example("a\x00", None, 0),
        Example("same", "b", 1),
        Example("same", "b", 1),
        Example("same", "c", 1),
    ]
    chosen = choose_samples(rows, LABELS, confidence(len(rows)), seed=1)
    assert {(text.text, text.pair) for text in chosen} == {("same", "b"), ("same", "c")}


@pytest.fixture(scope="module")
def folder(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pairs")
    export_pair_bundle(made, tiny_encoder)
    return made


def test_samples_are_texts_of_the_reported_part_with_their_labels(folder: Path) -> None:
    bundle, run = load_bundle(folder / "bundle"), Run(folder / "run")
    reported = {
        InputText(row.text, row.pair, run.task.labels[row.label]) for row in run.split().test
    }
    samples = bundle.samples()
    assert len(samples) == len(reported) == 40, "the reported part has fewer than 60 texts"
    assert set(samples) == reported
    assert SAMPLES in bundle.manifest.files
    assert describe(bundle).samples == samples
    assert describe(bundle).fields == {
        "text": "sentence1", "pair": "sentence2", "label": "label",
    }  # fmt: skip
    assert f"contains {len(samples)} texts" in (bundle.path / "README.md").read_text()


def test_damaged_samples_are_refused(folder: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    made = export_pair_bundle(tmp_path, tiny_encoder)
    with (made / SAMPLES).open("a") as lines:
        lines.write('{"text": "a", "pair": "b"}\n')
    with pytest.raises(BundleError, match="damaged"):
        load_bundle(made)


def test_refit_keeps_the_samples(folder: Path, tmp_path: Path) -> None:
    refit(folder / "bundle", tmp_path / "new", str(folder / "data"))
    assert load_bundle(tmp_path / "new").samples() == load_bundle(folder / "bundle").samples()


def test_export_leaves_the_samples_out_on_request(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    options = ["--mobile-layers", "1", "--edge-layers", "2", "--no-samples"]
    done = CliRunner().invoke(
        export, [str(folder / "run"), str(target), *options], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    bundle = load_bundle(target)
    assert bundle.samples() == []
    assert not (target / SAMPLES).exists()
    assert SAMPLES not in (target / "README.md").read_text()
    assert OPTIONS["mobile_layers"] == bundle.manifest.mobile_layers
