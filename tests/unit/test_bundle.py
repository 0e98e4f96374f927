"""An incomplete bundle is rejected at start, with a message that says what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.bundle.loading import Bundle, load_bundle, tier_layers
from shared.errors import BundleError
from tests.support.paths import BUNDLE


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return shutil.copytree(BUNDLE, tmp_path / "bundle")


@pytest.mark.parametrize("name", ["layers/03.onnx", "tokenizer.json", "router.npz"])
def test_damaged_file_is_named(name: str, copy: Path) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} is damaged .* copy the folder again"):
        load_bundle(copy)


def test_missing_file_is_named(copy: Path) -> None:
    (copy / "layers/06.onnx").unlink()
    with pytest.raises(BundleError, match=r"layers/06\.onnx is missing"):
        load_bundle(copy)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format_version": 2}', "not json"])
def test_invalid_manifest_is_rejected(content: str, copy: Path) -> None:
    (copy / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match="is not a manifest of format 1"):
        load_bundle(copy)


def test_manifest_without_a_layer_is_rejected(copy: Path) -> None:
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["files"]["layers/02.onnx"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"does not list layers/02\.onnx"):
        load_bundle(copy)


def test_missing_folder_error_says_how_to_export(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="dimee export"):
        load_bundle(tmp_path / "none")


@pytest.mark.parametrize(("m", "n"), [(0, 3), (3, 3), (4, 3), (2, 7), (-1, 2)])
def test_invalid_m_and_n_are_rejected(m: int, n: int, bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="1 <= m < n <= 6"):
        tier_layers(bundle, m, n)


def test_m_and_n_default_to_the_bundle(bundle: Bundle) -> None:
    ranges = tier_layers(bundle, None, 5)
    assert (ranges.mobile.last, ranges.edge.last, ranges.cloud.last) == (2, 5, 6)


@pytest.mark.parametrize("module", ["edge_server", "cloud_server", "mobile_client"])
def test_process_does_not_start_with_a_corrupt_bundle(
    module: str, copy: Path, tmp_path: Path
) -> None:
    (copy / "embeddings.safetensors").write_bytes(b"no tables")
    settings = {"DIMEE_BUNDLE": str(copy), "DIMEE_STATE_DIR": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, "-m", module],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("dimee: bundle: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("module", ["edge_server", "shared.ledger.server"])
def test_wrong_setting_is_reported_in_one_sentence(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module],
        env=os.environ | {"DIMEE_PORT": "many"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "DIMEE_PORT" in done.stderr
    assert "Traceback" not in done.stderr
