"""The bundle's manifest: its settings, its provenance and the checksum of every file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
EMBEDDINGS = "embeddings.safetensors"
ROUTER = "router.npz"
SAMPLES = "samples.jsonl"
FORMAT_VERSION = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


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
    files: dict[str, Sha256]
