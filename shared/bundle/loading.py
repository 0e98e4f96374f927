"""The bundle: what `lab` writes and every tier loads. Checked at start, never trusted later."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.bundle.correctness_heads import CorrectnessHeads
from shared.domain import LayerRange
from shared.errors import BundleError
from shared.pricing.cost_model import CostModel
from shared.validation import first_error

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
EMBEDDINGS = "embeddings.safetensors"
ROUTER = "router.npz"
FORMAT_VERSION = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def layer_file(layer: int) -> str:
    """The file of a layer and its exit head, relative to the bundle."""
    return f"layers/{layer:02d}.onnx"


class Manifest(BaseModel):
    """``manifest.json``: what the bundle is, how it was made and a checksum of every file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    task: str
    labels: tuple[str, ...]
    pairs: bool
    encoder: str
    licence: str
    layers: Annotated[int, Field(ge=1, le=200)]
    hidden_size: Annotated[int, Field(ge=1)]
    max_tokens: Annotated[int, Field(ge=8)]
    mobile_layers: int
    edge_layers: int
    alpha: Annotated[float, Field(gt=0, le=1)]
    precision: str
    pool_sizes: dict[str, int]
    cost_model: dict[str, float]
    mu: float
    accuracy: dict[str, Any]
    data_hash: str
    seed: int
    training: dict[str, Any] = {}
    """Settings of the runs that the layers come from; empty where they were not recorded."""
    files: dict[str, Sha256]


@dataclass(frozen=True)
class Bundle:
    """A checked bundle; ``bundle_id`` names its exact content: the manifest holds all checksums."""

    path: Path
    manifest: Manifest
    bundle_id: str

    @property
    def cost_model(self) -> CostModel:
        """The cost model that α and the pools were made with."""
        facts = self.manifest.cost_model
        return CostModel(layers=self.manifest.layers, **facts)

    def router(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """``centroids_DH`` of easy, moderate and hard, and how many samples made each."""
        with np.load(self.path / ROUTER, allow_pickle=False) as arrays:
            return arrays["centroids"], arrays["counts"]

    def correctness_heads(self) -> CorrectnessHeads | None:
        """The heads of the policy ``cascade-routing``; None in a bundle without them."""
        with np.load(self.path / ROUTER, allow_pickle=False) as arrays:
            return CorrectnessHeads.from_arrays({name: arrays[name] for name in arrays.files})


def load_bundle(path: Path | str) -> Bundle:
    """Read and check a bundle; raises `BundleError` with one sentence that says what to do."""
    folder = Path(path)
    file = folder / MANIFEST
    try:
        raw = file.read_bytes()
    except OSError:
        raise BundleError(
            f"bundle: {file} cannot be read; give a bundle's folder (--bundle, DIMEE_BUNDLE) "
            "or make one with: dimee export"
        ) from None
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        field, problem = first_error(error, whole="content")
        raise BundleError(
            f"bundle: {file} is not a manifest of format {FORMAT_VERSION} "
            f"({field}: {problem}); export the bundle again"
        ) from None
    _check_files(folder, manifest)
    return Bundle(folder, manifest, hashlib.sha256(raw).hexdigest()[:16])


def _check_files(folder: Path, manifest: Manifest) -> None:
    expected = {TOKENIZER, EMBEDDINGS, ROUTER}
    expected |= {layer_file(layer) for layer in range(1, manifest.layers + 1)}
    if missing := sorted(expected - set(manifest.files)):
        raise BundleError(
            f"bundle: {folder / MANIFEST} does not list {missing[0]}; export the bundle again"
        )
    for name, checksum in manifest.files.items():
        try:
            with (folder / name).open("rb") as content:
                found = hashlib.file_digest(content, "sha256").hexdigest()
        except OSError:
            raise BundleError(
                f"bundle: {folder / name} is missing; copy the whole folder again"
            ) from None
        if found != checksum:
            raise BundleError(
                f"bundle: {folder / name} is damaged (its checksum is not the manifest's); "
                "copy the folder again"
            )


def tier_layers(bundle: Bundle, mobile_layers: int | None, edge_layers: int | None) -> LayerRanges:
    """Resolve m and n (the bundle's by default) and check 1 <= m < n <= l."""
    m = bundle.manifest.mobile_layers if mobile_layers is None else mobile_layers
    n = bundle.manifest.edge_layers if edge_layers is None else edge_layers
    layers = bundle.manifest.layers
    if not 1 <= m < n <= layers:
        raise BundleError(
            f"layers: m = {m} (--mobile-layers) and n = {n} (--edge-layers) "
            f"must hold 1 <= m < n <= {layers}, the layers of {bundle.path}"
        )
    return LayerRanges(LayerRange(1, m), LayerRange(1, n), LayerRange(1, layers))


@dataclass(frozen=True)
class LayerRanges:
    """The layers that each tier runs."""

    mobile: LayerRange
    edge: LayerRange
    cloud: LayerRange
