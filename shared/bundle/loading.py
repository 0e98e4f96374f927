"""Loads a bundle and checks each of its files against its checksum."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from shared.bundle.correctness_heads import CorrectnessHeads
from shared.bundle.manifest import (
    EMBEDDINGS,
    FORMAT_VERSION,
    MANIFEST,
    ROUTER,
    SAMPLES,
    TOKENIZER,
    Manifest,
    layer_file,
)
from shared.domain import InputText, LayerRange
from shared.errors import BundleError, InvalidInput
from shared.pricing.cost_model import CostModel
from shared.text_files import FieldNames, TextReader
from shared.validation import first_error

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
        facts = self.manifest.cost_model
        return CostModel(layers=self.manifest.layers, **facts)

    def router(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return ``centroids_DH`` of easy, moderate and hard, and the size of each pool."""
        with np.load(self.path / ROUTER, allow_pickle=False) as arrays:
            return arrays["centroids"], arrays["counts"]

    def correctness_heads(self) -> CorrectnessHeads | None:
        """Return the heads of the policy ``cascade-routing``; None if the bundle has none."""
        with np.load(self.path / ROUTER, allow_pickle=False) as arrays:
            return CorrectnessHeads.from_arrays({name: arrays[name] for name in arrays.files})

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
    """Read and check a bundle; raises `BundleError`, whose message says what to do."""
    folder = Path(path)
    file = folder / MANIFEST
    try:
        raw = file.read_bytes()
    except PermissionError:
        raise _unreadable(file) from None
    except OSError:
        raise BundleError(f"bundle: {_instead_of_a_bundle(folder)}") from None
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        field, problem = first_error(error, whole="content")
        raise BundleError(
            f"bundle: {file} is not a manifest of format {FORMAT_VERSION} "
            f"({field}: {problem}); export its run again with this version of dimee"
        ) from None
    _check_files(folder, manifest)
    return Bundle(folder, manifest, hashlib.sha256(raw).hexdigest()[:16])


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
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except PermissionError:
        raise _unreadable(file) from None
    except OSError:
        raise BundleError(f"bundle: {file} is missing; copy the whole folder again") from None
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
