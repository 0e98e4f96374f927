"""An incomplete bundle is rejected at start, with a message that says what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shared.settings
from shared.bundle.loading import Bundle, load_bundle, tier_layers
from shared.domain import LayerRange
from shared.errors import BundleError
from shared.inference.layers import Layers
from shared.settings import BundleSettings, read_settings
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


def test_run_in_place_of_a_bundle_is_to_be_exported(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    for name in ("dimee.json", "config.json"):
        (run / "model" / name).write_text("{}")
    for given in (run, run / "model"):
        with pytest.raises(BundleError, match="is a training run; export it first") as caught:
            load_bundle(given)
        assert f"dimee export {run} BUNDLE" in caught.value.message


def test_hugging_face_folder_in_place_of_a_bundle_is_to_be_trained(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BundleError, match=f"dimee train --from-classifier {tmp_path} --out RUN"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "layers/01.onnx"])
def test_unreadable_file_error_says_how_to_change_its_mode(
    name: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> Any:
        if path == copy / name:
            raise PermissionError
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(BundleError, match=rf"may not read .*{name}; run chmod -R a\+rX"):
        load_bundle(copy)


def test_deeper_layers_are_loaded_from_an_unchanged_bundle_only(copy: Path) -> None:
    layers = Layers(load_bundle(copy), LayerRange(1, 1), 1)
    layers.deepen(2)
    shutil.copy(copy / "layers/04.onnx", copy / "layers/03.onnx")
    with pytest.raises(BundleError, match=r"03\.onnx is damaged"):
        layers.deepen(3)
    copy.rename(copy.with_name("moved"))
    with pytest.raises(BundleError, match=r"03\.onnx is missing"):
        layers.deepen(3)
    assert layers.range.last == 2


def test_bundle_in_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DIMEE_BUNDLE", "~/bundle")
    assert read_settings(BundleSettings).bundle == tmp_path / "bundle"


def test_mounted_bundle_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for mounted, expected in (
        (Path("/dev/null"), BUNDLE),
        (tmp_path / "nothing", BUNDLE),
        (tmp_path, tmp_path),
    ):
        monkeypatch.setattr(shared.settings, "MOUNTED_BUNDLE", mounted)
        assert shared.settings.default_bundle().resolve() == expected.resolve()


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
