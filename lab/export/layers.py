"""Write a bundle: one file for each layer, 8-bit tables, router and manifest."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from safetensors.numpy import save
from tqdm import tqdm

from lab.data.tasks import all_facts_of_task
from lab.evaluate.pools import Pools
from lab.export.onnx_layer import LayerFacts, layer_graph
from lab.export.samples import write_samples
from lab.models.embedding_tables import quantised_rows
from lab.models.model import MultiExitClassifier
from lab.models.run import Run, portable_facts
from shared.bundle.folders import check_target, replace_bundle
from shared.bundle.manifest import (
    EMBEDDINGS,
    MANIFEST,
    ROUTER,
    SAMPLES,
    TOKENIZER,
    Manifest,
    layer_file,
)
from shared.domain import InputText
from shared.pricing.cost_model import CostModel
from shared.terminal import progress_stream

PRECISION = "weights 7 bits (a scale an output), activations 8 bits (a scale a row), sums int32"


def write_embeddings(model: MultiExitClassifier, file: Path) -> None:
    """Write the word table in int8 with one fp32 scale for each row, and the rest in fp32."""
    tables = model.family.tables(model.encoder)
    word_VE, scale_V = quantised_rows(tables.word_VE)
    arrays: dict[str, NDArray[Any]] = {
        "word": word_VE,
        "word_scale": scale_V,
        "position": np.ascontiguousarray(tables.position_PE),
        "type": np.ascontiguousarray(tables.type_KE),
        "gamma": tables.gamma_E,
        "beta": tables.beta_E,
        "epsilon": np.array([tables.epsilon], np.float32),
    }
    if tables.projection_HE is not None and tables.projection_H is not None:
        arrays |= {"projection": tables.projection_HE, "projection_bias": tables.projection_H}
    content = save(arrays)
    file.write_bytes(content)  # save_file would make it unreadable for other users


def write_layers(model: MultiExitClassifier, folder: Path, bits: int | None = 8) -> None:
    """Write ``layers/NN.onnx``: each layer and its exit head, in fp32 if ``bits`` is None."""
    family, encoder = model.family, model.encoder
    (folder / "layers").mkdir(parents=True, exist_ok=True)
    facts = LayerFacts(
        heads=encoder.config.num_attention_heads,
        activation=family.activation,
        bias_AD=family.position_bias(encoder),
    )
    parts = zip(family.layers(encoder), model.exit_heads, model.shapes, strict=True)
    for number, (layer, head, shape) in enumerate(
        tqdm(list(parts), desc="layers", unit="layer", delay=2, file=progress_stream()), start=1
    ):
        graph = layer_graph(family.layer_weights(layer), facts, head, bits, shape.pooling)
        onnx.save(graph, str(folder / layer_file(number)))


def write_router(pools: Pools, file: Path) -> None:
    """Write centroids, counts and correctness heads; equal pools give equal bytes."""
    with zipfile.ZipFile(file, "w") as archive:
        arrays: dict[str, NDArray[Any]] = {
            "centroids": pools.centroids_DH,
            "counts": pools.counts_D,
        }
        if pools.heads is not None:
            arrays |= pools.heads.to_arrays()
        for name, values in arrays.items():
            content = io.BytesIO()
            np.save(content, values, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue())


def write_bundle(
    run: Run,
    pools: Pools,
    target: Path,
    max_tokens: int,
    accuracy: dict[str, Any],
    samples: Sequence[InputText] = (),
) -> Manifest:
    """Write the bundle to a temporary folder and move it to ``target``."""
    check_target(target)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as temporary:
        folder = Path(temporary) / "bundle"
        folder.mkdir()
        shutil.copy(run.tokenizer_file, folder / TOKENIZER)
        write_embeddings(run.model, folder / EMBEDDINGS)
        write_layers(run.model, folder)
        write_router(pools, folder / ROUTER)
        if samples:
            write_samples(samples, folder / SAMPLES)
        manifest = write_manifest(run, pools, folder, max_tokens, accuracy)
        replace_bundle(folder, target)
    return manifest


def write_manifest(
    run: Run, pools: Pools, folder: Path, max_tokens: int, accuracy: dict[str, Any]
) -> Manifest:
    """Write ``manifest.json`` for the files in ``folder``."""
    facts, model = run.facts, run.model
    names = [TOKENIZER, EMBEDDINGS, ROUTER]
    names += [layer_file(layer) for layer in range(1, model.layers + 1)]
    names += [SAMPLES] if (folder / SAMPLES).is_file() else []
    manifest = Manifest(
        task=run.task.name,
        labels=run.task.labels,
        metric=run.task.metric,
        pairs=run.task.pair_field is not None,
        encoder=portable_facts(facts)["encoder"],
        licence=facts["licence"],
        layers=model.layers,
        hidden_size=model.encoder.config.hidden_size,
        max_tokens=min(max_tokens, model.family.position_limit),
        mobile_layers=pools.mobile_layers,
        edge_layers=pools.edge_layers,
        alpha=pools.alpha,
        precision=PRECISION,
        pool_sizes=pools.sizes,
        cost_model=prices_of(pools.cost_model),
        mu=pools.mu,
        accuracy=accuracy,
        data_hash=facts["data_hash"],
        seed=facts["seed"],
        training=portable_facts(facts) | all_facts_of_task(run.task),
        files={name: sha256(folder / name) for name in names},
    )
    save_manifest(manifest, folder)
    return manifest


def save_manifest(manifest: Manifest, folder: Path) -> None:
    """Write ``manifest.json``."""
    content = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (folder / MANIFEST).write_text(content + "\n", encoding="utf-8")


def prices_of(model: CostModel) -> dict[str, float]:
    """Return the prices of a cost model by name."""
    return {name: value for name, value in asdict(model).items() if name != "layers"}


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
