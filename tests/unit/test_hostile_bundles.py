"""A bundle with wrong content is refused at start, with one sentence that says what to do."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mobile_client.local.runtime import LocalRuntime
from mobile_client.settings import MobileSettings
from shared.bundle.correctness_heads import CorrectnessHeads
from shared.bundle.manifest import EMBEDDINGS, LARGEST_FILE_BYTES, MANIFEST, ROUTER, TOKENIZER
from shared.errors import BundleError
from tests.support.bundles import linked_bundle, list_file
from tests.support.paths import BUNDLE

Change = Callable[[Path], None]
LAYER = "layers/01.onnx"


def refusal(folder: Path) -> str:
    """Return the message with which the mobile refuses a bundle at start."""
    with pytest.raises(BundleError) as refused:
        LocalRuntime(MobileSettings(bundle=folder, state_dir=folder))
    message = refused.value.message
    assert "\n" not in message
    assert len(message) < 500
    assert "; " in message, "it says what to do"
    return message


def manifest(**changes: Any) -> Change:
    """Change fields of the manifest."""

    def change(folder: Path) -> None:
        content = json.loads((folder / MANIFEST).read_bytes()) | changes
        write(folder, MANIFEST, json.dumps(content).encode())

    return change


def prices(**changes: Any) -> Change:
    """Change prices in λ; None removes one."""

    def change(folder: Path) -> None:
        content = json.loads((folder / MANIFEST).read_bytes())
        model = content["cost_model"] | changes
        content["cost_model"] = {name: value for name, value in model.items() if value is not None}
        write(folder, MANIFEST, json.dumps(content).encode())

    return change


def raw_manifest(content: bytes) -> Change:
    """Replace the manifest."""
    return lambda folder: write(folder, MANIFEST, content)


def file(name: str, content: bytes) -> Change:
    """Replace a file, with its checksum in the manifest."""

    def change(folder: Path) -> None:
        write(folder, name, content)
        list_file(folder, name)

    return change


def router(**changes: Any) -> Change:
    """Change arrays of the router; None removes one, a function changes one."""
    with np.load(BUNDLE / ROUTER) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for name, value in changes.items():
        if value is None:
            del arrays[name]
        else:
            arrays[name] = value(arrays[name]) if callable(value) else value
    content = io.BytesIO()
    np.savez(content, **arrays)
    return file(ROUTER, content.getvalue())


def tables(**changes: Any) -> Change:
    """Change tables of the embeddings."""

    def change(folder: Path) -> None:
        stored = load_file(BUNDLE / EMBEDDINGS)
        for name, value in changes.items():
            stored[name] = np.ascontiguousarray(value(stored[name]))
        (folder / EMBEDDINGS).unlink()
        save_file(stored, folder / EMBEDDINGS)
        list_file(folder, EMBEDDINGS)

    return change


def write(folder: Path, name: str, content: bytes) -> None:
    """Replace a file; it may be a link to the shipped one."""
    (folder / name).unlink()
    (folder / name).write_bytes(content)


def with_nan(values: Any) -> Any:
    """Return the array with NaN in its first element."""
    changed = np.array(values, copy=True)
    changed.flat[0] = np.nan
    return changed


def zipped(size: int) -> bytes:
    """Return a small router that has ``size`` bytes in memory."""
    content = io.BytesIO()
    with (
        zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("centroids.npy", "w", force_zip64=True) as out,
    ):
        for _ in range(size // 2**20):
            out.write(b"\0" * 2**20)
    return content.getvalue()


def npy(array: Any) -> bytes:
    """Return an array in NumPy's format, which is no router."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def tokenizer_without_separator(folder: Path) -> None:
    """Write a tokenizer that can be read and then panics in Rust, which is no `Exception`."""
    content = json.loads((BUNDLE / TOKENIZER).read_bytes())
    del content["post_processor"]["special_tokens"]["[SEP]"]
    write(folder, TOKENIZER, json.dumps(content).encode())
    list_file(folder, TOKENIZER)


WHOLE = (BUNDLE / MANIFEST).read_bytes()
CHANGES: dict[str, tuple[Change, str]] = {
    "nan_price": (prices(cloud_fee=float("nan")), "cost_model.cloud_fee"),
    "infinite_price": (prices(mobile_layer=float("inf")), "cost_model.mobile_layer"),
    "huge_price": (prices(mobile_layer=1e300), "cost_model.mobile_layer"),
    "negative_price": (prices(offload_edge=-1.0), "cost_model.offload_edge"),
    "missing_price": (prices(edge_layer=None), "cost_model"),
    "unknown_price": (prices(moon_layer=1.0), "cost_model.moon_layer"),
    "nan_mu": (manifest(mu=float("nan")), "mu: "),
    "nan_alpha": (manifest(alpha=float("nan")), "alpha: "),
    "one_label": (manifest(labels=["one"]), "labels: "),
    "three_labels": (manifest(labels=["a", "b", "c"]), "in a bundle of 3 labels"),
    "label_with_nul": (manifest(labels=["a\0", "b"]), "labels.0: "),
    "long_label": (manifest(labels=["a", "b" * 257]), "labels.1: "),
    "equal_labels": (manifest(labels=["a", "a"]), "two labels"),
    "task_with_nul": (manifest(task="a\0b"), "task: "),
    "hidden_size": (manifest(hidden_size=128), "do not fit"),
    "max_tokens": (manifest(max_tokens=100_000), "do not fit"),
    "mobile_layers": (manifest(mobile_layers=6, edge_layers=3), "mobile_layers < edge_layers"),
    "more_layers": (manifest(layers=7), "does not list layers/07.onnx"),
    "outside": (manifest(files={"../x": "0" * 64}), "files.../x"),
    "absolute": (manifest(files={"/dev/zero": "0" * 64}), "files./dev/zero"),
    "newline_in_name": (manifest(files={"a\nb": "0" * 64}), "files.a?b"),
    "twice": (raw_manifest(WHOLE.replace(b'"task":', b'"mu": 1, "task":')), "'mu': is there twice"),
    "deep": (raw_manifest(b'{"a":' * 50_000 + b"1" + b"}" * 50_000), "nested too deep"),
    "digits": (raw_manifest(b'{"seed": ' + b"1" * 10_000 + b"}"), "too many digits"),
    "not_utf8": (raw_manifest(b'{"task": "\xff"}'), "not UTF-8"),
    "cut": (raw_manifest(WHOLE[:1000]), "invalid JSON"),
    "too_large": (raw_manifest(b" " * 9_000_000), "more than 8,388,608 bytes"),
    "router_garbage": (file(ROUTER, b"PK\x03\x04" + b"x" * 99), "is not a router"),
    "router_empty": (file(ROUTER, b""), "is not a router"),
    "router_npy": (file(ROUTER, npy(np.zeros(3))), "is not a router"),
    "router_pickle": (file(ROUTER, pickle.dumps({})), "is not a router"),
    "router_objects": (router(counts=np.array([{}, 1, 2], object)), "is not a router"),
    "router_bomb": (file(ROUTER, zipped(300 * 2**20)), "more than 268,435,456 bytes"),
    "router_without_counts": (router(counts=None), "lacks counts"),
    "router_counts_float": (router(counts=np.ones(3)), "whole numbers"),
    "router_counts_negative": (router(counts=np.array([1, -1, 2])), "below 0"),
    "router_counts_zero": (router(counts=np.zeros(3, int)), "one above"),
    "router_text": (router(centroids=np.array(["a", "b", "c"])), "centroids numbers"),
    "router_two_centroids": (router(centroids=lambda c: c[:2]), "3 rows"),
    "router_nan": (router(centroids=with_nan), "not finite"),
    "router_width": (
        router(centroids=lambda c: c[:, :300]), "heads_exit0_HC has the shape (384, 2)",
    ),
    "heads_missing": (router(heads_diff_T=None), "lacks 'heads_diff_T'"),
    "heads_nan": (router(heads_mean_F=with_nan), "not finite"),
    "heads_text": (router(heads_mean_F=np.array(["x"] * 392)), "no numbers"),
    "heads_labels": (router(heads_exit0_C=np.zeros(3)), "heads_exit0_C has the shape (3,)"),
    "heads_shape": (router(heads_next_TT2=np.zeros((3, 3))), "heads_next_TT2 has the shape"),
    "heads_price": (router(heads_price=np.array(1e308)), "heads_price is not between 0 and 1e+09"),
    "heads_scale": (router(heads_scale_F=np.zeros(392)), "not above 0"),
    "embeddings_garbage": (file(EMBEDDINGS, b"\xff" * 4096), "does not hold embedding tables"),
    "embeddings_empty": (file(EMBEDDINGS, b""), "does not hold embedding tables"),
    "embeddings_dtype": (tables(word=lambda w: w.astype(np.float16)), "type int8"),
    "embeddings_nan": (tables(position=with_nan), "not finite"),
    "embeddings_short": (tables(word_scale=lambda s: s[:-5]), "do not fit"),
    "embeddings_words": (
        tables(word=lambda w: w[:100], word_scale=lambda s: s[:100]), "the embeddings have 100",
    ),
    "embeddings_epsilon": (tables(epsilon=lambda e: e[:0]), "does not hold embedding tables"),
    "tokenizer_garbage": (file(TOKENIZER, b"\xff\xff"), "is not a tokenizer"),
    "tokenizer_empty": (file(TOKENIZER, b""), "is not a tokenizer"),
    "tokenizer_object": (file(TOKENIZER, b"{}"), "is not a tokenizer"),
    "tokenizer_deep": (file(TOKENIZER, b"[" * 200_000), "is not a tokenizer"),
    "tokenizer_panic": (tokenizer_without_separator, "is not a tokenizer"),
    "layer_empty": (file(LAYER, b""), "cannot be run"),
    "layer_garbage": (file(LAYER, b"\x08\x07" * 999), "cannot be run"),
    "layer_cut": (file(LAYER, (BUNDLE / LAYER).read_bytes()[:5000]), "cannot be run"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_wrong_content_is_refused(name: str, tmp_path: Path) -> None:
    change, problem = CHANGES[name]
    folder = linked_bundle(tmp_path / "bundle")
    change(folder)
    assert problem in refusal(folder)


def make_socket(path: Path) -> None:
    """Leave a socket at a path, which may be longer than the address of a socket."""
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


def make_sparse(path: Path) -> None:
    """Make a file that is larger than any of a bundle, and takes no space."""
    with path.open("wb") as out:
        out.truncate(LARGEST_FILE_BYTES + 1)


SPECIAL: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "socket": make_socket,
    "folder": Path.mkdir,
    "loop": lambda path: path.symlink_to(path),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "sparse": make_sparse,
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", [MANIFEST, ROUTER, EMBEDDINGS, LAYER])
def test_special_file_is_refused_without_waiting(kind: str, name: str, tmp_path: Path) -> None:
    folder = linked_bundle(tmp_path / "bundle")
    (folder / name).unlink()
    SPECIAL[kind](folder / name)
    assert name in refusal(folder)


def test_manifest_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    folder = linked_bundle(tmp_path / "bundle")
    write(folder, MANIFEST, b"\xef\xbb\xbf" + WHOLE)
    LocalRuntime(MobileSettings(bundle=folder, state_dir=tmp_path)).close()


@pytest.mark.parametrize("kind", [str, bool, complex])
def test_heads_of_another_type_are_refused(kind: type) -> None:
    with np.load(BUNDLE / "router.npz") as arrays:
        changed = dict(arrays) | {"heads_alpha": arrays["heads_alpha"].astype(kind)}
    with pytest.raises(BundleError, match="are no numbers"):
        CorrectnessHeads.from_arrays(changed)
