"""Mobile bundle: the part of a bundle with which a browser or an app answers and decides.

It holds the layers 1..m with their exits, the embedding tables, the tokenizer, the router and a
manifest, as files that are compressed by gzip. ``docs/mobile-bundle.md`` describes the format.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors.numpy import load, save

from shared.bundle.loading import Bundle
from shared.bundle.manifest import (
    EMBEDDINGS,
    LARGEST_FILE_BYTES,
    MANIFEST,
    TOKENIZER,
    CostName,
    FilePath,
    LayerCount,
    layer_file,
)
from shared.domain import InputText
from shared.errors import BundleError
from shared.field_types import Alpha, Count, FreeText, Labels, Name, Price, Sha256, ShortSha256
from shared.files import read_limited
from shared.short_line import short_line

ROUTER_JSON = "router.json"
SUFFIX = ".gz"
"""All files but the manifest are compressed, and decompressed by the client itself: any server of
static files then sends few bytes."""


class TransferredFile(BaseModel):
    """A file as it is transferred: its bytes, and the SHA-256 of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: Count
    sha256: Sha256


class MobileManifest(BaseModel):
    """Content of a mobile bundle's ``manifest.json``.

    ``bundle_id`` is that of the whole bundle, which the tiers compare. ``layers``,
    ``mobile_layers`` and ``edge_layers`` are l, m and n. ``files`` lists every other file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    bundle_id: ShortSha256
    task: Name
    labels: Labels
    pairs: bool
    fields: dict[str, str]
    samples: list[InputText]
    encoder: FreeText
    licence: FreeText
    layers: LayerCount
    mobile_layers: LayerCount
    edge_layers: LayerCount
    hidden_size: int
    max_tokens: int
    alpha: Alpha
    mu: Price
    default_policy: Name
    cost_model: dict[CostName, Price]
    files: dict[FilePath, TransferredFile]


@dataclass(frozen=True)
class MobileBundle:
    """The files of a mobile bundle by their paths, as they are transferred."""

    manifest: MobileManifest
    files: dict[str, bytes]

    @property
    def transfer_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(map(len, self.files.values()))


def make_mobile_bundle(bundle: Bundle, mobile_layers: int, edge_layers: int) -> MobileBundle:
    """Return the mobile part of ``bundle`` for m and n layers, which `tier_layers` has checked.

    Raises `BundleError` if a file differs from its checksum. It takes about two seconds of
    computing for the shipped bundle.
    """
    contents = {
        TOKENIZER: _read(bundle, TOKENIZER),
        EMBEDDINGS: _embeddings(bundle),
        ROUTER_JSON: _router(bundle),
    }
    for layer in range(1, mobile_layers + 1):
        contents[layer_file(layer)] = _read(bundle, layer_file(layer))
    files = {name + SUFFIX: gzip.compress(raw, mtime=0) for name, raw in contents.items()}
    whole = bundle.manifest
    manifest = MobileManifest(
        bundle_id=bundle.bundle_id,
        task=whole.task,
        labels=whole.labels,
        pairs=whole.pairs,
        fields=asdict(bundle.field_names()),
        samples=bundle.samples(),
        encoder=whole.encoder,
        licence=whole.licence,
        layers=whole.layers,
        mobile_layers=mobile_layers,
        edge_layers=edge_layers,
        hidden_size=whole.hidden_size,
        max_tokens=whole.max_tokens,
        alpha=whole.alpha,
        mu=whole.mu,
        default_policy=bundle.default_policy,
        cost_model=whole.cost_model,
        files={
            name: TransferredFile(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            for name, content in files.items()
        },
    )
    document = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
    return MobileBundle(manifest, {MANIFEST: f"{document}\n".encode()} | files)


def _read(bundle: Bundle, name: str) -> bytes:
    """Return a file of the bundle; raise `BundleError` if it is not what the manifest lists."""
    try:
        raw = read_limited(bundle.path / name, LARGEST_FILE_BYTES)
    except OSError as error:
        raise BundleError(
            f"bundle: {bundle.path / name} cannot be read ({error.strerror}); copy the whole "
            "folder again"
        ) from None
    if hashlib.sha256(raw).hexdigest() != bundle.manifest.files[name]:
        raise BundleError(
            f"bundle: {bundle.path / name} has changed since the bundle was loaded; start again"
        )
    return raw


def _embeddings(bundle: Bundle) -> bytes:
    """Return the embedding tables without the positions that no text of the bundle reaches."""
    raw = _read(bundle, EMBEDDINGS)
    try:
        tables: dict[str, NDArray[Any]] = load(raw)
        tables["position"] = tables["position"][: bundle.manifest.max_tokens].copy()
        return save(tables)
    except Exception as error:  # safetensors' exceptions have no public base class
        raise BundleError(
            f"bundle: {bundle.path / EMBEDDINGS} does not hold embedding tables "
            f"({short_line(str(error), 200)}); export the bundle's run again"
        ) from None


def _router(bundle: Bundle) -> bytes:
    """Return the arrays of ``router.npz`` as JSON."""
    centroids_DE, counts_D = bundle.router()
    heads = bundle.correctness_heads()
    arrays: dict[str, NDArray[Any]] = {"centroids": centroids_DE, "counts": counts_D}
    if heads is not None:
        arrays |= heads.to_arrays()
    parts = [f"{json.dumps(name)}:{array_json(values)}" for name, values in arrays.items()]
    return f'{{"format_version":1,"arrays":{{{",".join(parts)}}}}}\n'.encode()


def array_json(values: NDArray[Any]) -> str:
    """Return an array as a JSON object with ``dtype``, ``shape`` and its ``values`` in row order.

    A number is the shortest text that reads back as the same number of its type. A number that is
    not finite, as in the centroid of an empty pool, is null.
    """
    numbers = [str(value) if np.isfinite(value) else "null" for value in values.ravel()]
    return (
        f'{{"dtype":"{values.dtype.name}","shape":{json.dumps(list(values.shape))},'
        f'"values":[{",".join(numbers)}]}}'
    )
