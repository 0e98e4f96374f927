"""The bundle's manifest: its settings, its provenance and the checksum of every file."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from shared.field_types import Alpha, Count, FreeText, Labels, Name, Price, Sha256

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
EMBEDDINGS = "embeddings.safetensors"
ROUTER = "router.npz"
SAMPLES = "samples.jsonl"
FORMAT_VERSION = 1

LARGEST_MANIFEST_BYTES = 8 * 1024 * 1024
LARGEST_FILE_BYTES = 2 * 1024**3
"""Largest file of a bundle; ONNX cannot hold more."""

CostName = Literal["mobile_layer", "edge_layer", "offload_edge", "offload_cloud", "cloud_fee"]
LayerCount = Annotated[int, Field(ge=1, le=200)]
FilePath = Annotated[
    str,
    Field(max_length=200, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$"),
]
"""Path of a file relative to the bundle, inside it."""


def layer_file(layer: int) -> str:
    """Return the file of a layer and its exit head, relative to the bundle."""
    return f"layers/{layer:02d}.onnx"


class Manifest(BaseModel):
    """Content of ``manifest.json``.

    ``accuracy`` holds the figures measured at export. ``training`` holds the settings of the
    training runs, if they were recorded. ``files`` maps the path of each file to its SHA-256; it
    lists `SAMPLES` if the bundle has sample texts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    task: Name
    labels: Labels
    metric: Name = "accuracy"
    pairs: bool
    encoder: FreeText
    licence: FreeText
    layers: LayerCount
    hidden_size: Annotated[int, Field(ge=1, le=65_536)]
    max_tokens: Annotated[int, Field(ge=8, le=1_048_576)]
    mobile_layers: LayerCount
    edge_layers: LayerCount
    alpha: Alpha
    precision: FreeText
    pool_sizes: dict[Name, Count]
    cost_model: Annotated[dict[CostName, Price], Field(min_length=5)]
    mu: Price
    accuracy: dict[str, Any]
    data_hash: FreeText
    seed: int
    training: dict[str, Any] = {}
    files: Annotated[dict[FilePath, Sha256], Field(max_length=1000)]

    @field_validator("labels")
    @classmethod
    def _are_different(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(labels)) < len(labels):
            raise ValueError("two labels have the same name")
        return labels

    @model_validator(mode="after")
    def _layers_fit(self) -> Self:
        if not 1 <= self.mobile_layers < self.edge_layers <= self.layers:
            raise ValueError("1 <= mobile_layers < edge_layers <= layers must hold")
        return self
