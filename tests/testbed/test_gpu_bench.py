"""The benchmark on a GPU runs in small without one, and refuses to run in full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.texts import sample_sentences
from tests.support.paths import REPOSITORY

COMMAND = [sys.executable, "-m", "testbed.bench.gpu"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [{"text": text, "label": "positive"} for text in sample_sentences()[:10]]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_part_runs_in_small(data: Path, tmp_path: Path) -> None:
    done = run("--data", str(data), "--out", "gpu", "--runs", "1", "--smoke", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    layers, http = report["layers"]["found"], report["http"]["found"]
    for one in layers["agreement"].values():
        assert one["texts"] == 8
        assert one["other_label"] == 0
        assert one["largest_difference"] < 0.1
    assert list(layers["models"]) == ["6 x 384", "2 x 64, random weights"]
    methods = {"early exit off", "early exit on", "transformers eager bf16"}
    for model in layers["models"].values():
        assert set(model["by_batch"]) == {"1", "3"}
        for by_method in model["by_batch"].values():
            assert set(by_method) == methods
            assert all(figures["texts_s"] > 0 for figures in by_method.values())
    assert set(http) == {"2", "4"}
    for by_server in http.values():
        assert by_server["cuda"]["rps"] > 0
        assert by_server["without layers"]["rps"] > 0
    page = (tmp_path / "gpu.md").read_text()
    assert "the figures mean nothing" in page
    assert "### 2 x 64, random weights" in page
    assert "| 4 |" in page


def test_without_a_gpu_the_reason_is_given(data: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from shared.inference.devices import gpus; print(gpus()[1])"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    problem = done.stdout.strip()
    if not problem:
        pytest.skip("this machine has a GPU")
    done = run("--data", str(data), "--out", "gpu", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip() == f"gpu: {problem}; --smoke tries the benchmark without a GPU"
