"""The mobile bundle: it holds what a browser needs and nothing else, in at most 15 MB."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from shared.bundle.loading import Bundle, load_bundle
from shared.bundle.manifest import EMBEDDINGS, MANIFEST, TOKENIZER
from shared.bundle.mobile_bundle import (
    ROUTER_JSON,
    MobileBundle,
    MobileManifest,
    array_json,
    make_mobile_bundle,
)
from shared.domain import InputText
from shared.errors import BundleError
from shared.inference.embeddings import TABLES, Embeddings
from shared.inference.tokenizer import TextEncoder
from tests.support.bundles import bundle_with_samples, bundle_without_heads, linked_bundle
from tests.support.paths import BUNDLE

MAX_TRANSFER_BYTES = 15_000_000
TEXTS = ("a gripping, funny film", "not the triumph it thinks it is " * 60)


@pytest.fixture(scope="module")
def mobile(bundle: Bundle) -> MobileBundle:
    """The mobile bundle of the shipped bundle with m = 2 and n = 3."""
    return make_mobile_bundle(bundle, 2, 3)


def unpacked(mobile: MobileBundle, name: str) -> bytes:
    return gzip.decompress(mobile.files[f"{name}.gz"])


def test_shipped_bundle_has_these_files_and_no_others_in_15_mb(mobile: MobileBundle) -> None:
    assert list(mobile.files) == [
        "manifest.json",
        "tokenizer.json.gz",
        "embeddings.safetensors.gz",
        "router.json.gz",
        "layers/01.onnx.gz",
        "layers/02.onnx.gz",
    ]
    assert mobile.transfer_bytes == sum(map(len, mobile.files.values())) <= MAX_TRANSFER_BYTES


def test_manifest_has_size_and_hash_of_each_file_as_transferred(mobile: MobileBundle) -> None:
    manifest = MobileManifest.model_validate_json(mobile.files[MANIFEST])
    assert manifest == mobile.manifest
    assert [MANIFEST, *manifest.files] == list(mobile.files)
    for name, listed in manifest.files.items():
        content = mobile.files[name]
        assert listed.bytes == len(content)
        assert listed.sha256 == hashlib.sha256(content).hexdigest()


def test_manifest_has_the_facts_of_the_whole_bundle(bundle: Bundle, mobile: MobileBundle) -> None:
    found = json.loads(mobile.files[MANIFEST])
    whole = json.loads((BUNDLE / MANIFEST).read_bytes())
    shared = (
        "task", "labels", "pairs", "encoder", "licence", "layers", "mobile_layers", "edge_layers",
        "hidden_size", "max_tokens", "alpha", "mu", "cost_model",
    )  # fmt: skip
    assert {name: found[name] for name in shared} == {name: whole[name] for name in shared}
    assert (found["format_version"], found["bundle_id"]) == (1, bundle.bundle_id)
    assert (found["default_policy"], found["samples"]) == ("cascade-routing", [])
    # neither the training's settings nor its figures
    assert set(found) == {
        *shared, "format_version", "bundle_id", "fields", "samples", "default_policy", "files",
    }  # fmt: skip


def test_layers_and_tokenizer_are_those_of_the_bundle(mobile: MobileBundle) -> None:
    for name in (TOKENIZER, "layers/01.onnx", "layers/02.onnx"):
        assert unpacked(mobile, name) == (BUNDLE / name).read_bytes()


def test_embeddings_give_the_same_numbers_and_hold_no_unused_position(
    mobile: MobileBundle, bundle: Bundle, tmp_path: Path
) -> None:
    file = tmp_path / EMBEDDINGS
    file.write_bytes(unpacked(mobile, EMBEDDINGS))
    cut, whole = Embeddings(file), Embeddings(BUNDLE / EMBEDDINGS)
    manifest = bundle.manifest
    cut.check(manifest.hidden_size, manifest.max_tokens)
    encoder = TextEncoder(BUNDLE / TOKENIZER, manifest.max_tokens)
    rows = [encoder.encode(text) for text in TEXTS]
    assert rows[1].tokens == manifest.max_tokens
    for row in rows:
        np.testing.assert_array_equal(cut.mean_word_embedding(row), whole.mean_word_embedding(row))
    np.testing.assert_array_equal(cut.first_hidden(rows)[0], whole.first_hidden(rows)[0])
    header_bytes = int.from_bytes(file.read_bytes()[:8], "little")
    header = json.loads(file.read_bytes()[8 : 8 + header_bytes])
    assert set(header) == set(TABLES)
    assert header["position"]["shape"] == [manifest.max_tokens, manifest.hidden_size]


def test_router_holds_the_same_numbers(mobile: MobileBundle) -> None:
    found = json.loads(unpacked(mobile, ROUTER_JSON))
    assert found["format_version"] == 1
    with np.load(BUNDLE / "router.npz", allow_pickle=False) as arrays:
        assert list(found["arrays"]) == arrays.files
        for name in arrays.files:
            one = found["arrays"][name]
            read = np.array(one["values"], one["dtype"]).reshape(one["shape"])
            assert read.dtype == arrays[name].dtype
            np.testing.assert_array_equal(read, arrays[name])


def test_m_decides_which_layers_are_in_it(bundle: Bundle) -> None:
    one = make_mobile_bundle(bundle, 1, 6)
    assert [name for name in one.files if "layers" in name] == ["layers/01.onnx.gz"]
    assert (one.manifest.mobile_layers, one.manifest.edge_layers) == (1, 6)


def test_router_without_heads_and_with_an_empty_pool(tmp_path: Path) -> None:
    bundle = load_bundle(bundle_without_heads(tmp_path / "bundle", (5, 0, 3)))
    arrays = json.loads(unpacked(make_mobile_bundle(bundle, 1, 2), ROUTER_JSON))["arrays"]
    assert set(arrays) == {"centroids", "counts"}
    width = arrays["centroids"]["shape"][1]
    values = arrays["centroids"]["values"]
    assert set(values[width : 2 * width]) == {None}
    assert None not in values[:width] + values[2 * width :]


def test_samples_of_a_bundle_are_in_the_manifest(tmp_path: Path) -> None:
    text = InputText("ein schöner Film", None, "positive")
    bundle = load_bundle(bundle_with_samples(tmp_path / "bundle", [text]))
    document = make_mobile_bundle(bundle, 1, 2).files[MANIFEST]
    assert MobileManifest.model_validate_json(document).samples == [text]


def test_same_bundle_gives_the_same_bytes(bundle: Bundle, mobile: MobileBundle) -> None:
    assert make_mobile_bundle(bundle, 2, 3).files == mobile.files


def test_file_that_changed_after_loading_is_refused(tmp_path: Path) -> None:
    folder = linked_bundle(tmp_path / "bundle")
    bundle = load_bundle(folder)
    layer = folder / "layers" / "01.onnx"
    layer.unlink()
    layer.write_bytes(b"other")
    with pytest.raises(BundleError, match="has changed"):
        make_mobile_bundle(bundle, 1, 2)
    layer.unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        make_mobile_bundle(bundle, 1, 2)


DTYPES: st.SearchStrategy[np.dtype[Any]] = st.sampled_from(
    [np.dtype("float32"), np.dtype("float64"), np.dtype("int64")]
)


@given(st_numpy.arrays(DTYPES, st_numpy.array_shapes(min_dims=0, max_dims=3, max_side=3)))
def test_array_reads_back_as_the_same_numbers(values: NDArray[Any]) -> None:
    found = json.loads(array_json(values))
    numbers = [np.nan if value is None else value for value in found["values"]]
    read = np.array(numbers, found["dtype"]).reshape(found["shape"])
    kept = values.copy()
    if values.dtype.kind == "f":  # what is not finite is written as null
        kept[~np.isfinite(values)] = np.nan
    np.testing.assert_array_equal(read, kept)
