"""Loads a bundle and checks each of its files against its checksum."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shared.bundle.correctness_heads import CorrectnessHeads
from shared.bundle.manifest import (
    EMBEDDINGS,
    FORMAT_VERSION,
    LARGEST_FILE_BYTES,
    LARGEST_MANIFEST_BYTES,
    MANIFEST,
    ROUTER,
    SAMPLES,
    TOKENIZER,
    Manifest,
    layer_file,
)
from shared.bundle.router_file import Router, read_router
from shared.documents import parse_document
from shared.domain import InputText, LayerRange
from shared.errors import BundleError, InvalidInput
from shared.files import open_regular, read_limited
from shared.pricing.cost_model import CostModel
from shared.text_files import FieldNames, TextReader

POLICY_WITH_HEADS = "cascade-routing"
"""Default policy of a bundle that has correctness heads."""
POLICY_WITHOUT_HEADS = "dimee-fixed"
"""Default policy of a bundle without correctness heads; every bundle can run it."""


@dataclass(frozen=True)
class Bundle:
    """A checked bundle.

    ``bundle_id`` is a hash of the manifest, which lists the checksums of all files.
    """

    path: Path
    manifest: Manifest
    bundle_id: str

    @property
    def cost_model(self) -> CostModel:
        """Cost model that the bundle was calibrated with."""
        return CostModel(layers=self.manifest.layers, **self.manifest.cost_model)

    def router(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return ``centroids_DH`` of easy, moderate and hard, and the size of each pool."""
        return self._router.centroids_DE, self._router.counts_D

    def correctness_heads(self) -> CorrectnessHeads | None:
        """Return the heads of the policy ``cascade-routing``; None if the bundle has none."""
        return self._router.heads

    @cached_property
    def _router(self) -> Router:
        return read_router(self.path / ROUTER, len(self.manifest.labels))

    def check_file(self, name: str) -> None:
        """Raise `BundleError` unless a file still has its checksum in the manifest."""
        _check_file(self.path / name, self.manifest.files[name])

    def samples(self) -> list[InputText]:
        """Return the sample texts of the bundle, from easy to hard; empty if it has none.

        Raises `BundleError` if they are not texts of this bundle's task.
        """
        if SAMPLES not in self.manifest.files:
            return []
        reader = TextReader(self.manifest.pairs, self.manifest.labels)
        try:
            return reader.read_file(self.path / SAMPLES)
        except InvalidInput as error:
            raise BundleError(f"bundle: {error.message}; export the bundle again") from None

    def field_names(self) -> FieldNames:
        """Return the names of the fields in the data that the bundle was trained on.

        They are the standard names for a bundle that does not record them.
        """
        facts, default = self.manifest.training, FieldNames()
        return FieldNames(
            facts.get("text_field") or default.text,
            facts.get("pair_field") or default.pair,
            facts.get("label_field") or default.label,
        )

    @cached_property
    def default_policy(self) -> str:
        """Name of the policy of requests and settings that name none.

        It is ``cascade-routing``, or ``dimee-fixed`` if the bundle was exported with too few
        validation examples for correctness heads.
        """
        return POLICY_WITHOUT_HEADS if self.correctness_heads() is None else POLICY_WITH_HEADS


def load_bundle(path: Path | str) -> Bundle:
    """Read and check a bundle; raises `BundleError`, whose message says what to do.

    The layers, the tokenizer and the embeddings are checked when they are loaded.
    """
    folder = Path(path)
    file = folder / MANIFEST
    try:
        raw = read_limited(file, LARGEST_MANIFEST_BYTES)
    except PermissionError:
        raise _unreadable(file) from None
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"bundle: {_instead_of_a_bundle(folder)}") from None
    except OSError as error:
        raise _not_a_file(file, error) from None
    try:
        manifest = parse_document(raw, Manifest)
    except ValueError as error:
        raise BundleError(
            f"bundle: {file} is not a manifest of format {FORMAT_VERSION} "
            f"({error}); export its run again with this version of dimee"
        ) from None
    _check_files(folder, manifest)
    bundle = Bundle(folder, manifest, hashlib.sha256(raw).hexdigest()[:16])
    bundle.router()
    return bundle


def _instead_of_a_bundle(path: Path) -> str:
    """Return in words what a path without a manifest is, and how to get a bundle."""
    for run in (path, path.parent):
        if (run / "model" / "dimee.json").is_file():
            return f"{run} is a training run; export it first: dimee export {run} BUNDLE"
    if (path / "config.json").is_file():
        return (
            f"{path} is a Hugging Face model; train exits for it and export the run: dimee train "
            f"--from-classifier {path} --out RUN, then dimee export RUN BUNDLE"
        )
    return (
        f"{path / MANIFEST} cannot be read; give a bundle's folder (--bundle, DIMEE_BUNDLE) "
        "or make one with: dimee export"
    )


def _unreadable(file: Path) -> BundleError:
    return BundleError(
        f"bundle: user {os.getuid()} may not read {file}; run chmod -R a+rX on the bundle's folder "
        "(a container's user is not yours), and check that its parent folders can be entered"
    )


def _not_a_file(file: Path, error: OSError) -> BundleError:
    return BundleError(
        f"bundle: {file} cannot be read ({error.strerror}); copy the whole folder again"
    )


def _check_files(folder: Path, manifest: Manifest) -> None:
    expected = {TOKENIZER, EMBEDDINGS, ROUTER}
    expected |= {layer_file(layer) for layer in range(1, manifest.layers + 1)}
    if missing := sorted(expected - set(manifest.files)):
        raise BundleError(
            f"bundle: {folder / MANIFEST} does not list {missing[0]}; copy the whole folder again, "
            "or export its run again"
        )
    for name, checksum in manifest.files.items():
        _check_file(folder / name, checksum)


def _check_file(file: Path, checksum: str) -> None:
    try:
        with open_regular(file) as content:
            if os.fstat(content.fileno()).st_size > LARGEST_FILE_BYTES:
                raise OSError(errno.EFBIG, f"it has more than {LARGEST_FILE_BYTES:,} bytes")
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except PermissionError:
        raise _unreadable(file) from None
    except FileNotFoundError:
        raise BundleError(f"bundle: {file} is missing; copy the whole folder again") from None
    except OSError as error:
        raise _not_a_file(file, error) from None
    if digest != checksum:
        raise BundleError(
            f"bundle: {file} is damaged (its checksum differs from the manifest); "
            "copy the folder again"
        )


@dataclass(frozen=True)
class LayerRanges:
    """Layers that each tier runs."""

    mobile: LayerRange
    edge: LayerRange
    cloud: LayerRange


def tier_layers(bundle: Bundle, mobile_layers: int | None, edge_layers: int | None) -> LayerRanges:
    """Return the layers of each tier for m and n; the default for both is the bundle's.

    Raises `BundleError` unless 1 <= m < n <= l.
    """
    m = bundle.manifest.mobile_layers if mobile_layers is None else mobile_layers
    n = bundle.manifest.edge_layers if edge_layers is None else edge_layers
    layers = bundle.manifest.layers
    if not 1 <= m < n <= layers:
        raise BundleError(
            f"layers: m = {m} (--mobile-layers) and n = {n} (--edge-layers) "
            f"must hold 1 <= m < n <= {layers}, the layers of {bundle.path}"
        )
    return LayerRanges(LayerRange(1, m), LayerRange(1, n), LayerRange(1, layers))
